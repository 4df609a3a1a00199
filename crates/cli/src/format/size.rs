//! Sizes in decimal units, as docker's lists have them.

const UNITS: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];

/// Three significant digits: columns of lists.
pub(crate) fn human_size(size_bytes: u64) -> String {
    with_digits(size_bytes, 3)
}

/// Four significant digits: sums, as `system df` and `prune` say them.
pub(crate) fn human_sum(size_bytes: u64) -> String {
    with_digits(size_bytes, 4)
}

fn with_digits(size_bytes: u64, digits: usize) -> String {
    let mut size = size_bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit < UNITS.len() - 1 {
        size /= 1000.0;
        unit += 1;
    }
    format!("{}{}", general(size, digits), UNITS.get(unit).unwrap_or(&""))
}

/// C's `%.*g`: significant digits, no zeros at the end, an exponent where the number is too long for them.
fn general(number: f64, digits: usize) -> String {
    let scientific = format!("{:.*e}", digits.saturating_sub(1), number);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let places = i32::try_from(digits).unwrap_or(i32::MAX) - 1 - exponent;
    match usize::try_from(places) {
        Ok(places) => without_zeros(&format!("{number:.places$}")).to_owned(),
        Err(_) => format!("{}e+{exponent:02}", without_zeros(mantissa)),
    }
}

fn without_zeros(number: &str) -> &str {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_docker_writes_them() {
        let check = |size_bytes: u64, three: &str, four: &str| {
            assert_eq!((human_size(size_bytes).as_str(), human_sum(size_bytes).as_str()), (three, four));
        };
        check(0, "0B", "0B");
        check(999, "999B", "999B");
        check(1000, "1kB", "1kB");
        check(1023, "1.02kB", "1.023kB");
        check(999_949, "1e+03kB", "999.9kB");
        check(72_850_000, "72.8MB", "72.85MB");
        check(999_999_999, "1e+03MB", "1000MB");
        check(u64::MAX, "18.4EB", "18.45EB");
    }

    #[test]
    fn vectors() {
        let root = std::env::var("MICA_CORPUS")
            .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus").to_owned());
        let Ok(text) = std::fs::read(format!("{root}/vectors/human-sizes.json")) else {
            println!("skipped: corpus is absent");
            return;
        };
        let vectors: serde_json::Value = serde_json::from_slice(&text).unwrap();
        for case in vectors["cases"].as_array().unwrap() {
            let Some(size_bytes) = case["in"].as_u64() else { continue };
            assert_eq!(human_size(size_bytes), case["human_size_p3"].as_str().unwrap());
            assert_eq!(human_sum(size_bytes), case["human_size"].as_str().unwrap());
        }
    }
}
