//! How an export fails, as facts.

use crate::push::PushError;

/// What is wrong with an export.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// It was told to stop.
    #[error("the export was stopped")]
    Stopped,
    /// A layer could not be written in the form that was asked for.
    #[error("{source}")]
    Encode {
        /// Which, and why.
        source: Box<PushError>,
    },
    /// One image has no index to write beside.
    #[error("index annotations not supported for single platform export: `{key}`")]
    NoIndex {
        /// Of the annotation.
        key: String,
    },
    /// Docker's archive holds images of one platform.
    #[error("docker exporter does not currently support exporting manifest lists")]
    SeveralPlatforms,
    /// The directory that an image layout should be added to is something else.
    #[error("`{path}` is neither empty nor an OCI image layout")]
    NotALayout {
        /// The directory.
        path: String,
    },
    /// The index of an image layout is not one.
    #[error("`{path}`: {source}")]
    Layout {
        /// The file.
        path: String,
        /// Why.
        source: mica_oci::DocumentError,
    },
    /// A link in the destination leads out of it.
    #[error("`{path}` in the destination is a symbolic link that leads out of it")]
    LeadsOutside {
        /// Where the link is.
        path: String,
    },
    /// A directory stands where something else should.
    #[error("`{path}` in the destination is a directory, and is none in the result")]
    InTheWay {
        /// Where.
        path: String,
    },
    /// A file of a layer is not as long as the layer's index says.
    #[error("`{path}` is not as long as the layer's index says")]
    Length {
        /// Path in the image.
        path: String,
    },
    /// A file cannot be written.
    #[error("cannot write `{path}`: {source}")]
    Write {
        /// Where to.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}
