//! Names for containers nobody named: `adjective_surname`.

use crate::error::Result;
use mica_sys::atomic_file::random_hex;

const ADJECTIVES: [&str; 32] = [
    "amber", "brave", "calm", "clever", "curious", "daring", "eager", "early", "fair", "gentle", "glad",
    "happy", "honest", "jolly", "keen", "kind", "lively", "lucky", "merry", "modest", "nimble", "patient",
    "proud", "quick", "quiet", "ready", "sharp", "steady", "sunny", "tidy", "warm", "wise",
];

/// People who worked on stones, crystals, numbers and machines.
const SURNAMES: [&str; 32] = [
    "agnesi",
    "agricola",
    "babbage",
    "bragg",
    "curie",
    "dana",
    "euler",
    "fermat",
    "franklin",
    "gauss",
    "germain",
    "hamilton",
    "hauy",
    "hodgkin",
    "hopper",
    "hutton",
    "kepler",
    "kovalevskaya",
    "leibniz",
    "lonsdale",
    "lovelace",
    "lyell",
    "mohs",
    "noether",
    "pascal",
    "perey",
    "ramanujan",
    "somerville",
    "steno",
    "turing",
    "werner",
    "yalow",
];

/// A random name; `attempt` counts names that were taken, and adds a number after the first few.
pub fn random_name(attempt: u32) -> Result<String> {
    let number = u32::from_str_radix(&random_hex(4)?, 16).unwrap_or(0) as usize;
    let pick =
        |list: &[&'static str], number: usize| list.get(number % list.len()).copied().unwrap_or("plain");
    let name = format!("{}_{}", pick(&ADJECTIVES, number), pick(&SURNAMES, number / ADJECTIVES.len()));
    Ok(if attempt < 3 { name } else { format!("{name}{}", (number >> 16) % 1000) })
}
