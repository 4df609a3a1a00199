//! The chores of this repository: `cargo xtask demo`, `cargo xtask test` and `cargo xtask fuzz`.
//!
//! `demo` is what a newcomer runs first: a real build and a real server from a fresh clone. `test` is all that CI runs, and
//! nothing else: `.ci/run` calls it. Here is only the order of things and what is printed; how a Debian base is made and
//! what a test may use is `mica-testkit`, because the tests need the same.
//!
//! Everything that is changed on the machine is told and, but for installed packages, taken back.

mod cargo;
mod demo;
mod fuzz;
mod packages;
mod tally;
mod test;
mod unprivileged;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["demo"] => demo::run(),
        ["test"] => test::run(),
        ["fuzz", ref words @ ..] => run_fuzz(words),
        _ => {
            eprintln!("usage: cargo xtask demo    builds and runs examples/hello-world-server");
            eprintln!("       cargo xtask test    formatting, lints, and every test");
            eprintln!("       cargo xtask fuzz [--seconds N] [TARGET...]    the parsers on made-up input");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run_fuzz(words: &[&str]) -> Result<(), String> {
    let failed = fuzz::run(&fuzz::Options::parse(words)?)?;
    if failed.is_empty() { Ok(()) } else { Err(format!("fuzz targets failed: {}", failed.join(", "))) }
}
