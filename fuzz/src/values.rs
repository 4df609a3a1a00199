//! Values of flags.

use mica_container::{
    parse_cpu_millis, parse_mount, parse_signal, parse_size_bytes, parse_tmpfs, parse_ulimit, parse_volume,
};

/// Sizes, processors, ulimits, signals.
pub fn limits(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = parse_size_bytes(&text);
    let _ = parse_cpu_millis(&text);
    if let Ok(limit) = parse_ulimit(&text) {
        assert!(limit.soft.unwrap_or(u64::MAX) <= limit.hard.unwrap_or(u64::MAX));
    }
    let _ = parse_signal(&text);
}

/// `1h30m`
pub fn duration(data: &[u8]) {
    let _ = mica_dockerfile::parse_age(&String::from_utf8_lossy(data));
}

/// `--publish`, `--add-host`
pub fn published(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = mica_network::parse_publish(&text);
    let _ = mica_network::parse_add_host(&text);
}

/// `--volume`, `--mount`, `--tmpfs`
pub fn volume(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = parse_volume(&text);
    let _ = parse_mount(&text);
    let _ = parse_tmpfs(&text);
}
