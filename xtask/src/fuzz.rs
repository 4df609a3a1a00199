//! `cargo xtask fuzz`: every parser on inputs that are made up while it runs, guided by what of the parser they reach.
//!
//! `fuzz/` is a workspace of its own. The compiler's coverage counters are a pass of LLVM that the stable compiler has too, so
//! no other toolchain is needed; `libfuzzer-sys` brings the engine. What makes a target fail is written to
//! `fuzz/artifacts/TARGET/`, and told with the command that shows it again.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use crate::cargo;

/// As `cargo fuzz` has them, without a sanitizer: there is no `unsafe` in what is fuzzed.
const FLAGS: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// How long each target runs in CI, at most and at least.
const SECONDS_IN_CI: u64 = 10;
const SECONDS_IN_CI_MIN: u64 = 2;
/// What all of it may take in CI, the build included: where that took long, each target gets less.
const BUDGET_IN_CI_SECONDS: u64 = 280;
/// An input that takes longer is one that somebody can stop a build with.
const TIMEOUT_SECONDS: u64 = 5;
/// More than any parser may need for inputs of a few kilobytes; the engine itself takes some of it.
const MEMORY_MIB: u64 = 768;
/// Lines shown of what a failed target said.
const LINES_SHOWN: usize = 30;

/// One parser, as `fuzz/src/main.rs` lists it.
#[derive(Clone)]
struct Target {
    name: String,
    length_max: String,
}

/// What `cargo xtask fuzz` is asked.
pub struct Options {
    /// How long each target runs; as long as the budget of CI allows if it is not said.
    pub seconds: Option<u64>,
    /// Those to run; all if there are none.
    pub targets: Vec<String>,
}

impl Options {
    /// `[--seconds N] [TARGET...]`
    pub fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self { seconds: Some(60), targets: Vec::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--seconds" => {
                    let number = words.next().and_then(|number| number.parse().ok());
                    options.seconds = Some(number.ok_or("`--seconds` needs a number")?);
                }
                word if word.starts_with('-') => return Err(format!("unknown flag `{word}`")),
                word => options.targets.push(word.to_owned()),
            }
        }
        Ok(options)
    }
}

/// Builds, and runs the targets, one on each core. The names of those that failed.
pub fn run(options: &Options) -> Result<Vec<String>, String> {
    let started = Instant::now();
    let program = build()?;
    let mut targets = list(&program)?;
    if let Some(unknown) =
        options.targets.iter().find(|name| !targets.iter().any(|target| target.name == **name))
    {
        let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
        return Err(format!("there is no fuzz target `{unknown}`; there are {}", names.join(", ")));
    }
    targets.retain(|target| options.targets.is_empty() || options.targets.contains(&target.name));
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    let left = BUDGET_IN_CI_SECONDS.saturating_sub(started.elapsed().as_secs());
    let rounds = targets.len().div_ceil(cores).max(1) as u64;
    let share = (left / rounds).clamp(SECONDS_IN_CI_MIN, SECONDS_IN_CI);
    let seconds = options.seconds.unwrap_or(share);
    println!(
        "{} fuzz targets, {seconds} s each, built in {:.0} s",
        targets.len(),
        started.elapsed().as_secs_f64()
    );
    let queue = Mutex::new(VecDeque::from(targets));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().ok().and_then(|mut queue| queue.pop_front());
                    let Some(target) = next else { return };
                    match fuzz(&program, &target, seconds) {
                        Ok(summary) => println!("fuzz {} ... ok, {summary}", target.name),
                        Err(problem) => {
                            println!("fuzz {} ... FAILED\n{problem}", target.name);
                            failed.lock().unwrap_or_else(|it| it.into_inner()).push(target.name);
                        }
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap_or_else(|it| it.into_inner());
    failed.sort();
    Ok(failed)
}

fn folder() -> PathBuf {
    cargo::workspace().join("fuzz")
}

fn build() -> Result<PathBuf, String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(folder()).env("RUSTFLAGS", FLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS");
    let directory = cargo::workspace().join("target/fuzz");
    command
        .args(["build", "--quiet", "--message-format=json-render-diagnostics", "--target-dir"])
        .arg(directory);
    let output = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    // There is one; what comes before it in the stream are libraries.
    let mut paths = text.lines().filter_map(|line| line.split("\"executable\":\"").nth(1)?.split('"').next());
    match paths.next_back() {
        Some(path) if output.status.success() => Ok(path.into()),
        _ => Err("the fuzz targets cannot be built".into()),
    }
}

fn list(program: &Path) -> Result<Vec<Target>, String> {
    let output = Command::new(program).env_remove("MICA_FUZZ_TARGET").output();
    let text = output.map(|output| output.stdout).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&text);
    let target = |line: &str| {
        let (name, length_max) = line.split_once(' ')?;
        Some(Target { name: name.to_owned(), length_max: length_max.to_owned() })
    };
    let targets: Vec<_> = text.lines().filter_map(target).collect();
    if targets.is_empty() { Err("the program names no fuzz targets".into()) } else { Ok(targets) }
}

/// Runs one target. What it did, or what it said when it failed.
fn fuzz(program: &Path, target: &Target, seconds: u64) -> Result<String, String> {
    let name = &target.name;
    let work = cargo::workspace().join("target/fuzz-corpus").join(name);
    let artifacts = folder().join("artifacts").join(name);
    let (seeds, found) = (work.join("seeds"), work.join("found"));
    for directory in [&seeds, &found, &artifacts] {
        std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    let mut command = Command::new(program);
    command.env("MICA_FUZZ_TARGET", name).env("MICA_FUZZ_SEEDS", &seeds);
    command.env("MICA_FUZZ_CORPUS", cargo::workspace().join("../shared/corpus"));
    if let Some(corpus) = std::env::var_os("MICA_CORPUS") {
        command.env("MICA_FUZZ_CORPUS", corpus);
    }
    check(command.output().map_err(|error| error.to_string())?)?;

    let mut command = Command::new(program);
    // An empty search path: no program that an input names is found. Homes of nobody: no settings of the user are read.
    command.env("MICA_FUZZ_TARGET", name).env("PATH", "/nonexistent").env("HOME", "/nonexistent");
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={}", target.length_max));
    command.arg(format!("-timeout={TIMEOUT_SECONDS}")).arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    command.args(["-print_final_stats=1", "-verbosity=1", "-detect_leaks=0"]);
    command.arg(format!("-artifact_prefix={}/", artifacts.display())).arg(&found).arg(&seeds);
    let memory = Path::new("/dev/shm");
    let memory = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let files = memory.join(format!("mica-fuzz.{}.{name}", std::process::id()));
    command.env("MICA_FUZZ_DIRECTORY", &files);
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let _ = std::fs::remove_dir_all(&files);
    let _ = std::fs::remove_dir(&artifacts);
    let text = check(output)
        .map_err(|said| format!("{said}\nagain: MICA_FUZZ_TARGET={name} {} FILE", program.display()))?;
    let number = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.map(|value| value.trim().to_owned()).unwrap_or_default()
    };
    let (runs, memory) = (number("stat::number_of_executed_units:"), number("stat::peak_rss_mb:"));
    Ok(format!("{runs} inputs, at most {memory} MiB"))
}

/// What a program wrote; the end of it as an error if the program failed.
fn check(output: Output) -> Result<String, String> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let lines: Vec<&str> = text.lines().collect();
    let end = lines.get(lines.len().saturating_sub(LINES_SHOWN)..).unwrap_or_default();
    let panic = lines.iter().find(|line| line.contains("panicked at")).copied().unwrap_or_default();
    Err([&[panic], end].concat().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked() {
        let check = |words: &[&str], expect: Result<(u64, &[&str]), &str>| {
            let found = Options::parse(words);
            let expect = expect.map(|(seconds, targets)| (seconds, targets.join(" ")));
            assert_eq!(
                found.map(|it| (it.seconds.unwrap_or_default(), it.targets.join(" "))),
                expect.map_err(str::to_owned)
            );
        };
        check(&[], Ok((60, &[])));
        check(&["--seconds", "5", "tar", "glob"], Ok((5, &["tar", "glob"])));
        check(&["tar", "--seconds"], Err("`--seconds` needs a number"));
        check(&["--fast"], Err("unknown flag `--fast`"));
    }
}
