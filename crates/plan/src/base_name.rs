//! Names of images and stages as people write them, and what they may have meant.

use mica_diagnostic::{Diagnostic, Span};
use mica_oci::Reference;

/// Images that people often start from; a name close to one was probably meant to be it.
const COMMON_IMAGES: [&str; 14] = [
    "alpine", "busybox", "centos", "debian", "fedora", "golang", "httpd", "nginx", "node", "postgres",
    "python", "redis", "rust", "ubuntu",
];

/// The image of that name, normalized.
pub(crate) fn parse_image_name(
    text: &str,
    span: Span,
    stages: &dyn Fn() -> Vec<String>,
) -> Result<Reference, Diagnostic> {
    let error = match Reference::parse(text) {
        Ok(reference) => return Ok(reference.with_default_tag()),
        Err(error) => error,
    };
    if let Some(lowered) = lower_repository(text) {
        let message = format!("`{text}` is not an image name: a repository name is lowercase");
        return Err(Diagnostic::error(span, message).hint(format!("did you mean `{lowered}`?")));
    }
    let diagnostic = Diagnostic::error(span, error.to_string());
    let trimmed = text.trim_end_matches([':', '@', '/']);
    if trimmed != text && Reference::parse(trimmed).is_ok() {
        return Err(diagnostic.hint(format!("did you mean `{trimmed}`?")));
    }
    let stages = stages();
    Err(match closest(text, stages.iter().map(String::as_str).chain(COMMON_IMAGES)) {
        Some(close) => diagnostic.hint(format!("did you mean `{close}`?")),
        None => diagnostic,
    })
}

/// The name with its repository in lower case, if that is all that was wrong with it.
fn lower_repository(text: &str) -> Option<String> {
    let name_end = text.find('@').unwrap_or(text.len());
    let (name, digest) = text.split_at(name_end);
    let last_part = name.rfind('/').map_or(0, |slash| slash + 1);
    let tag_start = name.get(last_part..)?.find(':').map_or(name.len(), |colon| last_part + colon);
    let (repository, tag) = name.split_at(tag_start);
    let lowered = format!("{}{tag}{digest}", repository.to_lowercase());
    (lowered != text && Reference::parse(&lowered).is_ok()).then_some(lowered)
}

/// The candidate that differs from `text` by at most two letters, and by fewer than half of them.
pub(crate) fn closest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lowered = text.to_lowercase();
    let limit = 2.min(lowered.chars().count() / 2);
    let distances =
        candidates.into_iter().map(|candidate| (distance(&lowered, &candidate.to_lowercase()), candidate));
    distances
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters to add, remove or replace to get from one text to the other. Long texts are never close.
fn distance(left: &str, right: &str) -> usize {
    const LENGTH_MAX: usize = 128;
    if left.len() > LENGTH_MAX || right.len() > LENGTH_MAX {
        return usize::MAX;
    }
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, left) in left.chars().enumerate() {
        let mut previous = std::mem::replace(&mut row[0], above + 1);
        for (column, right) in right.iter().enumerate() {
            let replaced = previous + usize::from(left != *right);
            previous = row[column + 1];
            row[column + 1] = replaced.min(previous + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Result<(), Option<&str>>) {
        let parsed = parse_image_name(text, Span::default(), &|| vec!["builder".to_string()]);
        let actual = parsed.map(|_| ()).map_err(|error| error.hint);
        assert_eq!(
            actual,
            expect.map_err(|hint| hint.map(|hint| format!("did you mean `{hint}`?"))),
            "{text}"
        );
    }

    #[test]
    fn names_are_images_or_say_what_was_meant() {
        check("alpine", Ok(()));
        check("localhost:5000/team/app:1.2", Ok(()));
        check("Ubuntu:18.04", Err(Some("ubuntu:18.04")));
        check("Team/App:V1", Err(Some("team/app:V1")));
        check("busybox:", Err(Some("busybox")));
        check("Builder!", Err(Some("builder")));
        check("a b", Err(None));
        check("", Err(None));
    }

    #[test]
    fn distances() {
        for (left, right, expect) in
            [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("same", "same", 0)]
        {
            assert_eq!(distance(left, right), expect);
        }
        assert_eq!(closest("biuld", ["test", "build"]), Some("build"));
        assert_eq!(closest("x", ["y"]), None);
    }
}
