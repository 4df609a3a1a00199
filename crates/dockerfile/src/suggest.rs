//! The nearest known name to a mistyped one.

/// The known name that the given one was probably meant to be, if there is one; case does not count.
pub fn suggest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    // Longer than any known name plus the distance: not worth the quadratic work.
    if given.len() > 64 {
        return None;
    }
    let given = given.to_lowercase().chars().collect::<Vec<_>>();
    let nearest =
        known.iter().map(|name| (distance(&given, name), *name)).min_by_key(|(distance, _)| *distance);
    nearest
        .filter(|(distance, name)| *distance <= 2 && *distance < name.chars().count())
        .map(|(_, name)| name)
}

/// Levenshtein's distance.
fn distance(given: &[char], known: &str) -> usize {
    let known = known.to_lowercase().chars().collect::<Vec<_>>();
    let mut row = (0..=known.len()).collect::<Vec<_>>();
    for (given_at, given) in given.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], given_at + 1);
        for (known_at, known) in known.iter().enumerate() {
            let replaced = diagonal + usize::from(given != known);
            diagonal = row[known_at + 1];
            row[known_at + 1] = replaced.min(diagonal + 1).min(row[known_at] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
