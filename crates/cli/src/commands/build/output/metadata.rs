//! What is told of a result: `--metadata-file`, `--iidfile`, `--quiet`.

use mica_oci::{Descriptor, Reference};
use serde_json::{Map, Value, json};

/// Image ID, descriptor and names of a result, as buildx tells them.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    /// What people know the result by.
    pub id: String,
    /// Digest of the config, of an image of one platform.
    pub config: Option<String>,
    /// What a name of it leads to.
    pub descriptor: Option<Descriptor>,
    /// Its names.
    pub names: Vec<Reference>,
}

impl Metadata {
    /// The document that `--metadata-file` asks for. There is nothing to tell of plain files.
    pub fn to_json(&self) -> String {
        let mut fields = Map::new();
        if let Some(descriptor) = &self.descriptor {
            if let Some(config) = &self.config {
                fields.insert("containerimage.config.digest".to_owned(), json!(config));
            }
            fields.insert("containerimage.descriptor".to_owned(), json!(descriptor));
            fields.insert("containerimage.digest".to_owned(), json!(descriptor.digest.to_string()));
            if !self.names.is_empty() {
                let names: Vec<String> = self.names.iter().map(Reference::canonical).collect();
                fields.insert("image.name".to_owned(), json!(names.join(",")));
            }
        }
        // A map of JSON values always encodes.
        format!("{}\n", serde_json::to_string_pretty(&Value::Object(fields)).unwrap_or_default())
    }
}
