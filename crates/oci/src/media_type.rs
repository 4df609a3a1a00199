//! Names of kinds of bytes, and what can be told from a name alone.

/// An OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// An uncompressed OCI layer.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// An OCI layer compressed with gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// An OCI layer compressed with zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// An uncompressed OCI layer that must not be distributed; deprecated.
pub const OCI_LAYER_NONDISTRIBUTABLE: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
/// The empty descriptor's type; its bytes are `{}`.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The `oci-layout` file of an image layout.
pub const OCI_LAYOUT_HEADER: &str = "application/vnd.oci.layout.header.v1+json";
/// A docker manifest list.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// A docker manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A docker manifest, schema 1: refused, but worth a name in the message.
pub const DOCKER_MANIFEST_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// A signed docker manifest, schema 1: refused, but worth a name in the message.
pub const DOCKER_MANIFEST_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// A docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// An uncompressed docker layer.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// A docker layer compressed with gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// A docker layer compressed with zstd, as BuildKit names it.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// A docker layer that lives at a foreign address.
pub const DOCKER_LAYER_FOREIGN_GZIP: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
/// An uncompressed docker layer that lives at a foreign address.
pub const DOCKER_LAYER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";

/// What to accept when a manifest is fetched, the preferred first.
pub const MANIFEST_ACCEPT: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_MANIFEST_LIST, DOCKER_MANIFEST];

/// How a layer's tar is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, the usual one.
    Gzip,
    /// zstd.
    Zstd,
}

/// Whether this names an index or a docker manifest list.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_MANIFEST_LIST)
}

/// Whether this names a manifest of one platform.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Whether this names an image config that [`crate::ImageConfig`] can read.
pub fn is_image_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}

/// Whether this names one of docker's own types rather than OCI's.
pub fn is_docker(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.")
}

/// Whether a layer of this type may live elsewhere only, so that it is neither pushed nor saved by default.
pub fn is_nondistributable(media_type: &str) -> bool {
    media_type.starts_with(OCI_LAYER_NONDISTRIBUTABLE)
        || matches!(media_type, DOCKER_LAYER_FOREIGN | DOCKER_LAYER_FOREIGN_GZIP)
}

/// How a layer of this type is compressed; `None` if this does not name a layer.
///
/// The name may lie, so a reader looks at the first bytes too.
pub fn layer_compression(media_type: &str) -> Option<Compression> {
    if let Some(suffix) =
        media_type.strip_prefix(OCI_LAYER_NONDISTRIBUTABLE).or_else(|| media_type.strip_prefix(OCI_LAYER))
    {
        return match suffix {
            "" => Some(Compression::None),
            "+gzip" => Some(Compression::Gzip),
            "+zstd" => Some(Compression::Zstd),
            _ => None,
        };
    }
    match media_type {
        DOCKER_LAYER | DOCKER_LAYER_FOREIGN => Some(Compression::None),
        DOCKER_LAYER_GZIP | DOCKER_LAYER_FOREIGN_GZIP => Some(Compression::Gzip),
        DOCKER_LAYER_ZSTD => Some(Compression::Zstd),
        _ => None,
    }
}

/// The OCI layer type of this compression.
pub const fn oci_layer(compression: Compression) -> &'static str {
    match compression {
        Compression::None => OCI_LAYER,
        Compression::Gzip => OCI_LAYER_GZIP,
        Compression::Zstd => OCI_LAYER_ZSTD,
    }
}

/// The docker layer type of this compression.
pub const fn docker_layer(compression: Compression) -> &'static str {
    match compression {
        Compression::None => DOCKER_LAYER,
        Compression::Gzip => DOCKER_LAYER_GZIP,
        Compression::Zstd => DOCKER_LAYER_ZSTD,
    }
}

/// Whether a text has the form of a media type (RFC 6838, section 4.2): `type/subtype`, each at most 127 long.
pub fn is_well_formed(media_type: &str) -> bool {
    let is_half = |half: &str| {
        half.len() <= 127
            && half.starts_with(|first: char| first.is_ascii_alphanumeric())
            && half.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
    };
    media_type.split_once('/').is_some_and(|(kind, subtype)| is_half(kind) && is_half(subtype))
}

/// A `Content-Type` header's value without parameters and surrounding blanks.
pub fn without_parameters(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(media_type: &str, expect: Option<Compression>) {
        assert_eq!(layer_compression(media_type), expect, "{media_type}");
    }

    #[test]
    fn compression_of_layers() {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            check(oci_layer(compression), Some(compression));
            check(docker_layer(compression), Some(compression));
        }
        check("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Some(Compression::Gzip));
        check("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", None);
        check(OCI_CONFIG, None);
        check("", None);
        assert!(is_nondistributable(DOCKER_LAYER_FOREIGN_GZIP));
        assert!(!is_nondistributable(OCI_LAYER_GZIP));
    }

    #[test]
    fn forms() {
        for good in MANIFEST_ACCEPT {
            assert!(is_well_formed(good), "{good}");
        }
        for bad in ["", "/", "a/", "/b", "a/b/c", ".a/b", "a/ b", "a/é", "a/b\n"] {
            assert!(!is_well_formed(bad), "{bad}");
        }
        assert_eq!(without_parameters("application/json; charset=utf-8"), "application/json");
        assert_eq!(without_parameters(""), "");
    }
}
