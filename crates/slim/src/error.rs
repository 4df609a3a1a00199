//! How slimming fails.

use std::time::Duration;

use thiserror::Error;

/// Why there is no slim image. Facts only: what to do about it is told by the command line.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SlimError {
    /// A command did not do what it should.
    #[error("`{command}`{}: {failure}", if *.on_result { " on the slim image" } else { "" })]
    Failed {
        /// In words.
        command: String,
        /// On the result, after it went well on the image.
        on_result: bool,
        /// What went wrong.
        failure: Failure,
        /// The last lines that it wrote.
        output: Vec<String>,
    },
    /// No files can be served on this machine.
    #[error("what an image uses cannot be seen here: {0}")]
    Unavailable(#[source] mica_trace::ServeError),
    /// What a command used is not known for sure.
    #[error("what `{command}` used is not known: {reason}")]
    NotObserved {
        /// In words.
        command: String,
        /// Why.
        reason: String,
    },
    /// A layer of the image is not what its index says.
    #[error("layer {diff_id} is damaged: `{path}`: {reason}")]
    LayerDamaged {
        /// Which.
        diff_id: String,
        /// A path in it.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A pattern that cannot be read.
    #[error("bad pattern `{pattern}`: {reason}")]
    BadPattern {
        /// As given.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A command that cannot be split into words.
    #[error("`{text}` cannot be split into words: {reason}")]
    BadWords {
        /// As given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The port of a check is left to the image, which does not name exactly one.
    #[error("which port to ask is not known: the image exposes {}", match .exposed.len() { 0 => "none".to_owned(), _ => .exposed.join(", ") })]
    PortUnknown {
        /// Ports that the image exposes.
        exposed: Vec<String>,
    },
    /// The result has no name of its own.
    #[error("no name for the result: {reason}")]
    NameMissing {
        /// Why none follows from the image.
        reason: &'static str,
    },
    /// The container failed.
    #[error(transparent)]
    Container(#[from] mica_container::ContainerError),
    /// The image cannot be read or kept.
    #[error(transparent)]
    Image(#[from] mica_image::ImageError),
    /// The layer cannot be made.
    #[error(transparent)]
    Layer(#[from] mica_layer::assemble::AssembleError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] mica_store::StoreError),
    /// A call failed.
    #[error(transparent)]
    System(#[from] mica_sys::Error),
}

/// What a command did in place of what it should.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// It ended with another code than 0.
    #[error("exit code {0}")]
    Code(i32),
    /// It could not be started.
    #[error("{0}")]
    NotStarted(String),
    /// It did not end in time.
    #[error("it still ran after {}", seconds(.0))]
    TimedOut(Duration),
    /// A server ended.
    #[error("it ended with exit code {code} before it answered at port {port}, path `{path}`")]
    EndedEarly {
        /// Its exit code.
        code: i32,
        /// Port.
        port: u16,
        /// Path.
        path: String,
    },
    /// A server did not answer as it should.
    #[error("no good answer from port {port}, path `{path}`, in {}: {last}", seconds(.time))]
    NoAnswer {
        /// Port.
        port: u16,
        /// Path.
        path: String,
        /// How long it was tried.
        time: Duration,
        /// What came of the last try.
        last: String,
    },
}

fn seconds(time: &Duration) -> String {
    format!("{} s", time.as_secs())
}
