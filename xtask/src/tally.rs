//! Counts of test runs, read from what the test programs print.

use std::collections::BTreeMap;

/// What all test programs together said.
#[derive(Debug, Default)]
pub struct Tally {
    /// Tests that the harness calls passed, skipped ones included.
    harness_passed: u64,
    /// Tests that did not hold, and steps that failed.
    pub failed: u64,
    /// Tests that could not run here, with their reason.
    pub skipped: BTreeMap<String, String>,
    /// The counts of the foreign build cases.
    pub build_cases: Vec<String>,
    /// Names of what failed.
    pub failures: Vec<String>,
    current: String,
    in_successes: bool,
}

impl Tally {
    /// Takes one line of a test program's output (`--show-output`).
    ///
    /// A test that cannot run prints `skipped: <reason>` and returns, so the harness counts it as passed; here it moves.
    pub fn line(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.harness_passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
        } else if line.starts_with("running ") {
            self.current.clear();
            self.in_successes = false;
        } else if line == "successes:" || line == "failures:" {
            self.in_successes = line == "successes:";
        } else if let Some(name) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.current = name.to_owned();
        } else if let Some(reason) = line.strip_prefix("skipped: ") {
            if self.in_successes && !self.current.is_empty() && !self.skipped.contains_key(&self.current) {
                self.skipped.insert(self.current.clone(), reason.to_owned());
            }
        } else if line.starts_with("build cases: ") && line.contains("not yet applicable") {
            self.build_cases.push(line.to_owned());
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
    }

    /// Counts a whole step that failed.
    pub fn step_failed(&mut self, name: &str) {
        self.failed += 1;
        self.failures.push(name.to_owned());
    }

    /// The lines of the summary; the last one is the totals.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, reason) in &self.skipped {
            reasons.entry(reason).or_default().push(name);
        }
        for (reason, names) in reasons {
            text += &format!("skipped {}: {reason}: {}\n", names.len(), names.join(", "));
        }
        for line in &self.build_cases {
            text += &format!("{line}\n");
        }
        for name in &self.failures {
            text += &format!("failed: {name}\n");
        }
        let passed = self.harness_passed.saturating_sub(self.skipped.len() as u64);
        text + &format!("{passed} passed, {} failed, {} skipped", self.failed, self.skipped.len())
    }
}

fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split(word).next().unwrap_or_default();
    before.rsplit(' ').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_test_is_not_a_passed_one() {
        let mut tally = Tally::default();
        let output = "test root_a ... ok\ntest b ... FAILED\n\nsuccesses:\n\n---- root_a stdout ----\nskipped: needs root\n\
                      skipped: twice\n\nsuccesses:\n    root_a\n\nfailures:\n\n---- b stdout ----\nskipped: not so\n\n\
                      test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n\
                      build cases: 3 passed, 0 failed, 1 not yet applicable";
        output.lines().for_each(|line| tally.line(line));
        assert!(tally.summary().ends_with("failed: b\n2 passed, 1 failed, 1 skipped"), "{}", tally.summary());
        assert!(tally.summary().starts_with("skipped 1: needs root: root_a\nbuild cases: 3 passed"));
    }
}
