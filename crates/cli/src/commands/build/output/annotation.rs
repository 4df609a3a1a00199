//! Annotations as they are written: `--annotation`, and keys of `--output`.

use mica_image::{Annotation, AnnotationPlace};
use mica_oci::Platform;

use crate::error::CliError;

const PLACES: &[(&str, AnnotationPlace)] = &[
    ("manifest", AnnotationPlace::Manifest),
    ("index", AnnotationPlace::Index),
    ("manifest-descriptor", AnnotationPlace::ManifestDescriptor),
    ("index-descriptor", AnnotationPlace::IndexDescriptor),
];

/// Values of `--annotation`: `[PLACE[PLATFORM],...:]KEY=VALUE`.
pub(super) fn parse_flag(text: &str) -> Result<Vec<Annotation>, CliError> {
    let invalid = |why: String| CliError::new(format!("invalid value `{text}` for `--annotation`: {why}"));
    let Some((left, value)) = text.split_once('=') else {
        return Err(invalid("expected `KEY=VALUE`".to_owned()));
    };
    // A key may have colons of its own, behind the places.
    let (places, key) = match left.split_once(':') {
        Some((places, key)) if is_places(places) => (places, key),
        _ => ("manifest", left),
    };
    if key.is_empty() {
        return Err(invalid("the key is empty".to_owned()));
    }
    let of_place = |text: &str| {
        let (place, platform) = place(text.trim()).map_err(&invalid)?;
        Ok(Annotation { place, platform, key: key.to_owned(), value: value.to_owned() })
    };
    places.split(',').map(of_place).collect()
}

/// A key of `--output`: `annotation[-PLACE][[PLATFORM]].KEY`.
pub(super) fn parse_key(text: &str, key: &str, value: &str) -> Result<Annotation, CliError> {
    let invalid = |why: String| CliError::new(format!("invalid value `{text}` for `--output`: {why}"));
    // The platform may have dots.
    let (head, own) = match key.split_once("].") {
        Some((head, own)) => (format!("{head}]"), own),
        None => key.split_once('.').map_or((key.to_owned(), ""), |(head, own)| (head.to_owned(), own)),
    };
    if own.is_empty() {
        return Err(invalid(format!("expected `annotation.KEY=VALUE` instead of `{key}`")));
    }
    let rest = head.strip_prefix("annotation").unwrap_or(&head);
    let rest = match rest.strip_prefix('-') {
        Some(place) => place.to_owned(),
        None => format!("manifest{rest}"),
    };
    let (place, platform) = place(&rest).map_err(invalid)?;
    Ok(Annotation { place, platform, key: own.to_owned(), value: value.to_owned() })
}

/// Whether a text before a colon says places, known or not. What does not look like one, as a name with dots, belongs to
/// the key.
fn is_places(text: &str) -> bool {
    text.split(',').all(|one| {
        let word = one.trim().split('[').next().unwrap_or_default();
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    })
}

fn place(text: &str) -> Result<(AnnotationPlace, Option<Platform>), String> {
    let (word, platform) = match text.split_once('[') {
        Some((word, rest)) => {
            let inside = rest.strip_suffix(']').ok_or_else(|| format!("`[` is not closed in `{text}`"))?;
            (word, Some(Platform::parse(inside).map_err(|error| error.to_string())?))
        }
        None => (text, None),
    };
    match PLACES.iter().find(|(name, _)| *name == word) {
        Some((_, place)) => Ok((*place, platform)),
        None => Err(format!(
            "there is no annotation of `{word}`; it is `manifest`, `index`, `manifest-descriptor` or `index-descriptor`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(annotation: &Annotation) -> String {
        let platform =
            annotation.platform.as_ref().map(|platform| format!("[{platform}]")).unwrap_or_default();
        format!("{:?}{platform} {}={}", annotation.place, annotation.key, annotation.value)
    }

    #[test]
    fn flags() {
        let check = |text: &str, expect: &str| {
            let found = match parse_flag(text) {
                Ok(found) => found.iter().map(shown).collect::<Vec<_>>().join("; "),
                Err(error) => error.message,
            };
            assert_eq!(found, expect, "{text}");
        };
        check("a=b", "Manifest a=b");
        check("a=b=c", "Manifest a=b=c");
        check("index:a=b", "Index a=b");
        check("index,manifest:a=b", "Index a=b; Manifest a=b");
        check("manifest-descriptor[linux/amd64]:a=", "ManifestDescriptor[linux/amd64] a=");
        check("index-descriptor:a.b/c=1", "IndexDescriptor a.b/c=1");
        check("a.org:key=b", "Manifest a.org:key=b");
        check(
            "manifets:key=b",
            "invalid value `manifets:key=b` for `--annotation`: there is no annotation of `manifets`; it is `manifest`, `index`, \
             `manifest-descriptor` or `index-descriptor`",
        );
        check("a", "invalid value `a` for `--annotation`: expected `KEY=VALUE`");
        check("=a", "invalid value `=a` for `--annotation`: the key is empty");
        check(
            "manifest[linux:a=b",
            "invalid value `manifest[linux:a=b` for `--annotation`: `[` is not closed in `manifest[linux`",
        );
    }

    #[test]
    fn keys() {
        let check = |key: &str, expect: &str| {
            let found = match parse_key("T", key, "v") {
                Ok(found) => shown(&found),
                Err(error) => error.message,
            };
            assert_eq!(found, expect, "{key}");
        };
        check("annotation.org.Foo", "Manifest org.Foo=v");
        check("annotation-index.a", "Index a=v");
        check("annotation[linux/arm64].a.b", "Manifest[linux/arm64] a.b=v");
        check("annotation-manifest-descriptor[linux/arm64].a", "ManifestDescriptor[linux/arm64] a=v");
        check(
            "annotation",
            "invalid value `T` for `--output`: expected `annotation.KEY=VALUE` instead of `annotation`",
        );
        check(
            "annotation-other.a",
            "invalid value `T` for `--output`: there is no annotation of `other`; it is `manifest`, `index`, \
             `manifest-descriptor` or `index-descriptor`",
        );
    }
}
