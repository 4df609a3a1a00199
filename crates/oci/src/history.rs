//! How a layer, or a change of the config, came to be.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::absent::{empty_as_none, is_blank, is_false, null_as_default};

/// One line of an image's history (image spec, `config.md`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// When, in RFC 3339.
    #[serde(default, deserialize_with = "empty_as_none", skip_serializing_if = "is_blank")]
    pub created: Option<String>,
    /// The command that did it.
    #[serde(default, deserialize_with = "empty_as_none", skip_serializing_if = "is_blank")]
    pub created_by: Option<String>,
    /// Who did it.
    #[serde(default, deserialize_with = "empty_as_none", skip_serializing_if = "is_blank")]
    pub author: Option<String>,
    /// Free text; BuildKit writes `buildkit.dockerfile.v0`.
    #[serde(default, deserialize_with = "empty_as_none", skip_serializing_if = "is_blank")]
    pub comment: Option<String>,
    /// Whether only the config changed, so that no layer belongs to this line.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_false")]
    pub empty_layer: bool,
    /// Fields that are not known here, as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
