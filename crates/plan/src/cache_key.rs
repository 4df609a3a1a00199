//! Keys of steps. The table of what is in them stands on the front page; the encoding is here.
//!
//! Every value is written with its length or a tag before it, so that no two different steps have the same bytes. The
//! first field names the version: whoever changes what is written changes it, and all recorded steps miss once.

use crate::graph::FilesystemState;
use crate::step::{
    Chmod, CopySourceSpec, CopyStep, FileSource, Operation, RunStep, Step, StepMount, WorkdirStep,
};
use mica_dockerfile::instruction::{CacheSharing, RunNetwork};

/// First field of a definition. A new number makes every recorded step miss.
const DEFINITION_VERSION: &str = "mica step definition 1";

/// First field of a step's key. A new number makes every recorded step miss.
const KEY_VERSION: &str = "mica step key 1";

/// The part of a step's key that is in the Dockerfile and the options: all that is not a file.
pub fn definition_key(step: &Step) -> [u8; 32] {
    let mut encoder = Encoder::new(DEFINITION_VERSION);
    encoder.text(&step.platform.normalized().specifier());
    match &step.operation {
        Operation::Run(run) => encoder.run(run),
        Operation::Copy(copy) => encoder.copy(copy),
        Operation::Workdir(WorkdirStep { path, user }) => {
            encoder.tag(3);
            encoder.text(path);
            encoder.text(user);
        }
    }
    encoder.finish()
}

/// The key of a step on a given parent: `parent_chain` is the parent's own key or digest, `None` for nothing at all;
/// `contents` are digests of the files it reads from elsewhere, in the order of sources or mounts.
pub fn step_key(parent_chain: Option<&[u8; 32]>, definition: &[u8; 32], contents: &[[u8; 32]]) -> [u8; 32] {
    let mut encoder = Encoder::new(KEY_VERSION);
    match parent_chain {
        None => encoder.tag(0),
        Some(chain) => {
            encoder.tag(1);
            encoder.bytes(chain);
        }
    }
    encoder.bytes(definition);
    encoder.number(contents.len() as u64);
    for content in contents {
        encoder.bytes(content);
    }
    encoder.finish()
}

struct Encoder(blake3::Hasher);

impl Encoder {
    fn new(version: &str) -> Self {
        let mut encoder = Self(blake3::Hasher::new());
        encoder.text(version);
        encoder
    }

    fn finish(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }

    fn tag(&mut self, tag: u8) {
        self.0.update(&[tag]);
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn flag(&mut self, flag: bool) {
        self.tag(u8::from(flag));
    }

    fn optional_text(&mut self, text: Option<&str>) {
        self.flag(text.is_some());
        if let Some(text) = text {
            self.text(text);
        }
    }

    fn texts(&mut self, texts: &[String]) {
        self.number(texts.len() as u64);
        for text in texts {
            self.text(text);
        }
    }

    /// Only the kind: which files they are is told by their content.
    fn source(&mut self, source: Option<&FileSource>) {
        self.tag(match source {
            None => 0,
            Some(FileSource::Context) => 1,
            Some(FileSource::State(FilesystemState::Scratch)) => 2,
            Some(FileSource::State(_)) => 3,
        });
    }

    fn run(&mut self, run: &RunStep) {
        // Named one by one, so that a new field cannot be forgotten here.
        let RunStep {
            argv,
            environment,
            hidden_environment: _,
            user,
            directory,
            mounts,
            network,
            insecure,
            devices,
            retries: _,
            script,
        } = run;
        self.tag(1);
        self.texts(argv);
        self.number(environment.len() as u64);
        for (name, value) in environment {
            self.text(name);
            self.text(value);
        }
        self.text(user);
        self.text(directory);
        self.number(mounts.len() as u64);
        for mount in mounts {
            self.mount(mount);
        }
        self.tag(match network {
            RunNetwork::Default => 0,
            RunNetwork::None => 1,
            RunNetwork::Host => 2,
        });
        self.flag(*insecure);
        self.texts(devices);
        self.flag(script.is_some());
        if let Some(script) = script {
            self.text(&script.path);
            self.text(&script.content);
        }
    }

    fn mount(&mut self, mount: &StepMount) {
        match mount {
            StepMount::Bind { target, from, source, read_write, span: _ } => {
                self.tag(1);
                self.text(target);
                self.source(Some(from));
                self.text(source);
                self.flag(*read_write);
            }
            StepMount::Cache { target, id, from, source, sharing, read_only, mode, uid, gid, span: _ } => {
                self.tag(2);
                self.text(target);
                self.text(id);
                self.source(from.as_ref());
                self.text(source);
                self.tag(match sharing {
                    CacheSharing::Shared => 0,
                    CacheSharing::Private => 1,
                    CacheSharing::Locked => 2,
                });
                self.flag(*read_only);
                self.ownership(*mode, *uid, *gid);
            }
            StepMount::Tmpfs { target, size_bytes } => {
                self.tag(3);
                self.text(target);
                self.flag(size_bytes.is_some());
                self.number(size_bytes.unwrap_or_default());
            }
            StepMount::Secret { id, target, environment_name, required, mode, uid, gid, span: _ } => {
                self.tag(4);
                self.text(id);
                self.optional_text(target.as_deref());
                self.optional_text(environment_name.as_deref());
                self.flag(*required);
                self.ownership(*mode, *uid, *gid);
            }
            StepMount::Ssh { id, target, required, mode, uid, gid, span: _ } => {
                self.tag(5);
                self.text(id);
                self.text(target);
                self.flag(*required);
                self.ownership(*mode, *uid, *gid);
            }
        }
    }

    fn ownership(&mut self, mode: u32, uid: u32, gid: u32) {
        for number in [mode, uid, gid] {
            self.number(u64::from(number));
        }
    }

    fn copy(&mut self, copy: &CopyStep) {
        let CopyStep {
            add,
            from,
            sources,
            destination,
            chown,
            chmod,
            link,
            parents,
            excludes,
            checksum,
            keep_git_dir,
            unpack,
        } = copy;
        self.tag(2);
        self.flag(*add);
        self.source(Some(from));
        self.number(sources.len() as u64);
        for source in sources {
            let (tag, text) = match &source.spec {
                CopySourceSpec::Path(text) => (1, text),
                CopySourceSpec::Url(text) => (2, text),
                CopySourceSpec::Git(text) => (3, text),
                CopySourceSpec::Heredoc { name, content } => {
                    self.tag(4);
                    self.text(name);
                    self.text(content);
                    continue;
                }
            };
            self.tag(tag);
            self.text(text);
        }
        self.text(destination);
        self.optional_text(chown.as_deref());
        match chmod {
            None => self.tag(0),
            Some(Chmod::Octal(mode)) => {
                self.tag(1);
                self.number(u64::from(*mode));
            }
            Some(Chmod::Symbolic(text)) => {
                self.tag(2);
                self.text(text);
            }
        }
        self.flag(*link);
        self.flag(*parents);
        self.texts(excludes);
        self.optional_text(checksum.as_deref());
        self.flag(*keep_git_dir);
        self.tag(match unpack {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        });
    }
}
