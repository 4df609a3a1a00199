//! All that is known of an image, in the shape of `docker image inspect`.

use mica_oci::{Document, ImageId, MANIFEST_SIZE_BYTES_MAX, Reference, chain_ids};
use mica_store::{ImageRecord, Store};
use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::resolve::{config_bytes, record};

/// What scripts written for docker read.
pub fn inspect(store: &Store, id: &ImageId) -> Result<Value> {
    let record = record(store, id)?;
    let bytes = config_bytes(store, id)?;
    let config = mica_oci::ImageConfig::parse(&bytes)?;
    let mut names = store.names_of(id)?;
    names.extend(store.other_names_of(id)?);
    let descriptor = descriptor(store, &names, &record)?;
    let mut names: Vec<Reference> = names.iter().filter_map(|name| Reference::parse(name).ok()).collect();
    names.sort_by_key(Reference::canonical);
    let familiar = |with_digest: bool| -> Vec<String> {
        let names = names.iter().filter(|name| name.digest().is_some() == with_digest);
        names.map(Reference::familiar).collect()
    };
    let comment = config.history.last().and_then(|line| line.comment.clone()).unwrap_or_default();
    // Paths of the layers, the topmost first, as overlayfs takes them.
    let mut lowers = Vec::new();
    for (diff_id, chain_id) in record.layers.iter().zip(chain_ids(&record.layers)).rev() {
        if let Some(layer) = store.layer(diff_id, Some(&chain_id))? {
            lowers.push(layer.tree_path().to_string_lossy().into_owned());
        }
    }
    let mut graph = Map::new();
    if let [upper, below @ ..] = lowers.as_slice() {
        if !below.is_empty() {
            graph.insert("LowerDir".to_owned(), json!(below.join(":")));
        }
        graph.insert("UpperDir".to_owned(), json!(upper));
    }
    let mut value = json!({
        "Id": id.to_string(),
        "RepoTags": familiar(false),
        "RepoDigests": familiar(true),
        "Parent": record.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        "Comment": comment,
        "Created": config.created,
        "DockerVersion": config.extra.get("docker_version").and_then(Value::as_str).unwrap_or_default(),
        "Author": config.author.clone().unwrap_or_default(),
        "Config": container_config(&config),
        "Architecture": config.architecture,
    });
    if let Some(object) = value.as_object_mut() {
        if let Some(variant) = &config.variant {
            object.insert("Variant".to_owned(), json!(variant));
        }
        object.insert("Os".to_owned(), json!(config.os));
        if let Some(version) = &config.os_version {
            object.insert("OsVersion".to_owned(), json!(version));
        }
        object.insert("Size".to_owned(), json!(record.size_bytes));
        object.insert("GraphDriver".to_owned(), json!({ "Data": graph, "Name": "overlay2" }));
        object.insert(
            "RootFS".to_owned(),
            json!({ "Type": config.rootfs.kind, "Layers": config.rootfs.diff_ids }),
        );
        object.insert("Metadata".to_owned(), json!({ "LastTagTime": "0001-01-01T00:00:00Z" }));
        object.insert("Descriptor".to_owned(), descriptor);
    }
    Ok(value)
}

/// What its names lead to in their registry, where that is stored; else its manifest.
fn descriptor(store: &Store, names: &[String], record: &ImageRecord) -> Result<Value> {
    let mut targets = Vec::new();
    for name in names {
        targets.extend(store.target_of(name)?);
    }
    for digest in targets.iter().chain([&record.manifest]) {
        // A document that is damaged or was of another image is no reason not to show this one.
        if let Ok(bytes) = store.read_blob(digest, MANIFEST_SIZE_BYTES_MAX)
            && let Ok(document) = Document::parse(&bytes, None)
        {
            return Ok(json!({
                "mediaType": document.media_type(),
                "digest": digest.to_string(),
                "size": bytes.len(),
            }));
        }
    }
    Ok(json!({ "digest": record.manifest.to_string() }))
}

/// The config with the fields that templates of scripts ask for, also where the image does not set them.
fn container_config(config: &mica_oci::ImageConfig) -> Value {
    let mut value = serde_json::to_value(&config.config).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        for (field, default) in [
            ("Hostname", json!("")),
            ("Domainname", json!("")),
            ("User", json!("")),
            ("Env", Value::Null),
            ("Cmd", Value::Null),
            ("Entrypoint", Value::Null),
            ("Image", json!("")),
            ("Volumes", Value::Null),
            ("ExposedPorts", Value::Null),
            ("WorkingDir", json!("")),
            ("OnBuild", Value::Null),
            ("Labels", Value::Null),
        ] {
            if !object.contains_key(field) {
                object.insert(field.to_owned(), default);
            }
        }
    }
    value
}
