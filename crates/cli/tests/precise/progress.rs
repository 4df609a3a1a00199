//! The plain progress of a build, as the steps that a test counts.

/// How a step came to its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It ran.
    Ran,
    /// A hit on the very same parent.
    Chain,
    /// A hit because nothing that it used had changed.
    Record,
    /// It failed, or the build ended before it did.
    Unfinished,
}

/// One instruction that the progress named.
#[derive(Debug, Clone)]
pub struct Step {
    /// The instruction as it is printed, without its position.
    pub text: String,
    /// How it ended.
    pub way: Way,
    /// Why it ran again, if that was said.
    pub reason: String,
}

/// The instructions in the order in which they were first named.
pub fn steps(stderr: &str) -> Vec<Step> {
    let mut found: Vec<(&str, Step)> = Vec::new();
    for line in stderr.lines() {
        let Some((number, rest)) = line.strip_prefix('#').and_then(|line| line.split_once(' ')) else {
            continue;
        };
        if let Some((position, text)) = rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            if position != "internal" && !found.iter().any(|(other, _)| *other == number) {
                found.push((number, Step { text: text.into(), way: Way::Unfinished, reason: String::new() }));
            }
        } else if let Some((_, step)) = found.iter_mut().find(|(other, _)| *other == number) {
            match rest {
                "CACHED" => step.way = Way::Chain,
                _ if rest.starts_with("CACHED (") => step.way = Way::Record,
                _ if rest.starts_with("DONE ") => step.way = Way::Ran,
                _ if step.reason.is_empty() && rest.contains("again: ") => step.reason = rest.into(),
                _ => {}
            }
        }
    }
    found.into_iter().map(|(_, step)| step).collect()
}

/// The error of a failed build without what differs from run to run: its first line and where it points.
pub fn error(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().collect();
    let start = lines.iter().position(|line| line.starts_with("error")).unwrap_or(lines.len());
    lines[start..].iter().take(2).copied().collect::<Vec<_>>().join("\n")
}

#[test]
fn plain_progress_is_read() {
    let text = "#1 [internal] load build context\n#1 DONE 0.0s\n\n#4 [2/4] COPY . /app\n#4 CACHED\n\n\
        #5 [one 3/4] RUN a [b] c\n#5 0.1 CACHED\n#5 DONE 0.1s\n#6 [4/4] RUN x\n#6 CACHED (nothing it used changed)\n\
        #7 [5/5] RUN y\n#7 ERROR: no\nerror: no\n  --> Dockerfile:1:1\n more\n";
    let read: Vec<(String, Way)> = steps(text).into_iter().map(|step| (step.text, step.way)).collect();
    let expect = [
        ("COPY . /app", Way::Chain),
        ("RUN a [b] c", Way::Ran),
        ("RUN x", Way::Record),
        ("RUN y", Way::Unfinished),
    ];
    assert_eq!(read, expect.map(|(text, way)| (text.to_owned(), way)));
    assert_eq!(error(text), "error: no\n  --> Dockerfile:1:1");
}
