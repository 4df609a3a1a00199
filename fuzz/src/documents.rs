//! The words of the image world: what is read and written again means the same.

use mica_oci::{
    AnyReference, Document, ImageConfig, ImageLayout, Index, Manifest, Platform, Reference, docker_archive,
    indent_json,
};

/// Manifests, indexes, configs, archives' lists, layouts.
pub fn documents(data: &[u8]) {
    for media_type in [None, Some("application/vnd.oci.image.index.v1+json")] {
        if let Ok(document) = Document::parse(data, media_type) {
            document.media_type();
        }
    }
    if let Ok(manifest) = Manifest::parse(data) {
        assert_eq!(Manifest::parse(&manifest.to_canonical_json()).ok().as_ref(), Some(&manifest));
    }
    if let Ok(index) = Index::parse(data) {
        index.select(&Platform::new("linux", "amd64"));
        index.platforms();
        assert_eq!(Index::parse(&index.to_canonical_json()).ok().as_ref(), Some(&index));
    }
    if let Ok(config) = ImageConfig::parse(data) {
        config.history_with_layers().for_each(drop);
        config.chain_id();
        config.platform().runs();
        assert_eq!(ImageConfig::parse(&config.to_canonical_json()).ok().as_ref(), Some(&config));
    }
    if let Ok(images) = docker_archive::parse_manifest(data) {
        docker_archive::manifest_to_json(&images);
    }
    if let Ok(repositories) = docker_archive::parse_repositories(data) {
        docker_archive::repositories_to_json(&repositories);
    }
    let _ = ImageLayout::parse(data);
    indent_json(data, "  ");
}

/// `parse(display(x)) == x`
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = AnyReference::parse(text);
    let _ = mica_registry_client::registry_of(text);
    ImageLayout::parse_blob_path(text);
    let Ok(reference) = Reference::parse(text) else { return };
    let again = |text: &str| Reference::parse(text);
    assert_eq!(again(&reference.to_string()).as_ref(), Ok(&reference));
    assert_eq!(again(&reference.canonical()).as_ref(), Ok(&reference));
    assert_eq!(again(&reference.familiar()).as_ref(), Ok(&reference));
}

/// A platform is read as what it is written as.
pub fn platform(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(platform) = Platform::parse(text) else { return };
    platform.runs();
    let again = Platform::parse(&platform.specifier()).expect("what we wrote");
    // Features have no order; the specifier gives them one.
    assert_eq!(again.specifier(), platform.specifier());
}
