//! What the tests share: the corpus of foreign test data, and plans of texts.

#![allow(dead_code, reason = "each test file uses some of it")]

use mica_diagnostic::{Diagnostic, Source};
use mica_dockerfile::parse_dockerfile;
use mica_oci::{ImageConfig, Platform};
use mica_plan::{BaseImage, Graph, ImageKey, PlanOptions, plan};
use std::path::PathBuf;

/// A folder or file of the corpus, if it is there.
pub fn corpus(path: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("MICA_CORPUS") {
        Some(root) => PathBuf::from(root),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus")),
    };
    if !root.is_dir() {
        println!("skipped: corpus is absent");
        return None;
    }
    Some(root.join(path))
}

/// The base image of the corpus.
pub fn corpus_base() -> BaseImage {
    let json = br#"{"architecture":"amd64","os":"linux","config":{
        "Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["sh"]},
        "history":[{"created_by":"base"}],"rootfs":{"type":"layers","diff_ids":[
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#;
    BaseImage { config: ImageConfig::parse(json).expect("the base config is one") }
}

/// Options for linux/amd64.
pub fn options() -> PlanOptions {
    PlanOptions::for_platform(Platform::new("linux", "amd64"))
}

/// Parses and plans, every image being `base`.
pub fn plan_text(text: &str, options: &PlanOptions, base: &BaseImage) -> Result<Graph, Vec<Diagnostic>> {
    plan_with(text, options, &|_| Some(base))
}

/// Parses and plans with some images.
pub fn plan_with<'a>(
    text: &str,
    options: &PlanOptions,
    bases: &dyn Fn(&ImageKey) -> Option<&'a BaseImage>,
) -> Result<Graph, Vec<Diagnostic>> {
    let dockerfile = parse_dockerfile(Source::new("Dockerfile", text))?;
    plan(&dockerfile, options, bases)
}
