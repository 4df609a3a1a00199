//! Why a step ran or did not, in words: one line for progress, a block a step for `--explain` and `mica why`.

use mica_build::{BuildReport, Changed, Reason, StepReport, UnusedChanges, Verdict};

use crate::progress::{printable, seconds};

/// Paths that are named where many changed; JSON has more of them.
const PATHS_NAMED: usize = 5;
/// Digits of a digest that tell two files apart.
const DIGITS_SHOWN: usize = 12;

/// How progress shows a known result. Scripts look for the first word.
pub(crate) fn cached(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Record { .. } | Verdict::Imported { by_record: true, .. } => {
            "CACHED (nothing it used changed)"
        }
        Verdict::Chain | Verdict::Imported { .. } | Verdict::Shared | Verdict::Ran { .. } => "CACHED",
    }
}

/// How progress says why a step runs; nothing for what was never done before.
pub(crate) fn again(reason: &Reason) -> Option<String> {
    short(reason).map(|why| format!("again: {why}"))
}

/// A reason on one line, without values.
pub(crate) fn short(reason: &Reason) -> Option<String> {
    Some(match reason {
        Reason::First => return None,
        Reason::NoCache => "earlier results are not used (`--no-cache` or its filter)".to_owned(),
        Reason::Never => "its comment `# mica: never` says so".to_owned(),
        Reason::Expired { age_seconds, ttl_seconds } => {
            match (duration(*age_seconds), duration(*ttl_seconds)) {
                (age, limit) if age == limit => format!("its result is older than {limit}"),
                (age, limit) => format!("its result is {age} old, older than {limit}"),
            }
        }
        Reason::NewBase => "it used the network, and the base image changed".to_owned(),
        Reason::Changed(changed) => difference(changed),
        Reason::Unrecorded { why } => printable(why),
    })
}

/// `/app/package.json changed`, `src/a.c in the build context is new`, `mode of /bin/cc changed`
fn difference(changed: &Changed) -> String {
    let path = printable(if changed.path.is_empty() { "/" } else { &changed.path });
    let place = match (changed.place.is_empty(), changed.path.is_empty()) {
        (true, _) => path,
        (false, true) => printable(&changed.place),
        (false, false) => format!("{path} in {}", printable(&changed.place)),
    };
    match changed.what.as_str() {
        what @ ("new" | "gone") => format!("{place} is {what}"),
        what if what == "changed" || what.starts_with("is ") => format!("{place} {}", printable(what)),
        what => match what.strip_suffix(" changed") {
            Some(part) => format!("{} of {place} changed", printable(part)),
            None => format!("{place}: {}", printable(what)),
        },
    }
}

/// What is known of steps, a block each, and a sum below if they are all of a build's.
pub(crate) fn explanation(report: &BuildReport, steps: &[&StepReport]) -> String {
    let mut text = String::new();
    for step in steps {
        text.push_str(&block(&report.dockerfile, step));
        text.push('\n');
    }
    match steps.len() == report.steps.len() {
        true => text.push_str(&sum(steps)),
        // One block needs no line to part it from the next.
        false => text.truncate(text.trim_end().len() + 1),
    }
    text
}

fn block(dockerfile: &str, step: &StepReport) -> String {
    let mut facts = vec![format!("{}:{}", printable(dockerfile), step.line)];
    if let Verdict::Ran { .. } = step.verdict {
        facts.push(format!("took {}", seconds(std::time::Duration::from_millis(step.elapsed_ms))));
        match step.network {
            Some(true) => facts.push("used the network".to_owned()),
            // Of the others nobody expects it.
            Some(false) if step.instruction == "RUN" => facts.push("did not use the network".to_owned()),
            _ => {}
        }
    }
    format!("{}\n  {}\n  {}\n", printable(&step.name), sentence(&step.verdict), facts.join(", "))
}

/// A verdict with all that is known of it.
pub(crate) fn sentence(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Chain => "cached: the same step on the same layers was done before".to_owned(),
        Verdict::Shared => "cached: another step of this build did the same".to_owned(),
        Verdict::Record { unused } => {
            let below = unused.as_ref().map_or_else(|| "layers below it are others".to_owned(), below);
            format!("cached: nothing it used changed; {below}")
        }
        Verdict::Imported { cache, by_record, unused } => {
            let why = match (by_record, unused) {
                (false, _) => "the same step on the same layers was done before".to_owned(),
                (true, None) => "nothing it used changed; layers below it are others".to_owned(),
                (true, Some(unused)) => format!("nothing it used changed; {}", below(unused)),
            };
            format!("cached: {why}; from cache {}", printable(cache))
        }
        Verdict::Ran { reason } => match (reason, short(reason)) {
            (Reason::Changed(changed), Some(why)) => format!("ran again: {why}{}", values(changed)),
            (_, Some(why)) => format!("ran again: {why}"),
            (_, None) => "ran: no earlier result of it is known".to_owned(),
        },
    }
}

fn below(unused: &UnusedChanges) -> String {
    if unused.count == 0 {
        return "below it nothing differs".to_owned();
    }
    let mut paths: Vec<String> = unused.first.iter().take(PATHS_NAMED).map(|path| printable(path)).collect();
    if unused.count > paths.len() {
        paths.push("…".to_owned());
    }
    match unused.count {
        1 => format!("below it 1 path differs: {}", paths.join(", ")),
        count => format!("below it {} paths differ: {}", grouped(count), paths.join(", ")),
    }
}

/// ` (was blake3:ab12…, now blake3:cd34…)`
fn values(changed: &Changed) -> String {
    // The name of something new says nothing beside its path.
    let name = changed.path.rsplit('/').next().unwrap_or_default();
    let shown = |text: &str| if text == name { String::new() } else { value(text) };
    let (old, new) = (shown(&changed.old), shown(&changed.new));
    match (old.is_empty(), new.is_empty()) {
        (true, true) => String::new(),
        (false, true) => format!(" (was {old})"),
        (true, false) => format!(" (now {new})"),
        (false, false) => format!(" (was {old}, now {new})"),
    }
}

/// A value, the digits of a digest cut.
fn value(text: &str) -> String {
    let text = printable(text);
    match text.split_once(':') {
        Some((algorithm, digits)) if digits.len() == 64 && digits.bytes().all(|c| c.is_ascii_hexdigit()) => {
            format!("{algorithm}:{}…", digits.chars().take(DIGITS_SHOWN).collect::<String>())
        }
        _ => text,
    }
}

/// `5 steps: 3 cached, 1 of them although layers below changed; 2 ran, 5.1s`
fn sum(steps: &[&StepReport]) -> String {
    let ran = steps.iter().filter(|step| matches!(step.verdict, Verdict::Ran { .. }));
    let (ran, elapsed_ms) =
        ran.fold((0, 0u64), |(count, sum), step| (count + 1, sum.saturating_add(step.elapsed_ms)));
    let by_record = steps
        .iter()
        .filter(|step| {
            matches!(step.verdict, Verdict::Record { .. } | Verdict::Imported { by_record: true, .. })
        })
        .count();
    let noun = if steps.len() == 1 { "step" } else { "steps" };
    let mut text = format!("{} {noun}: {} cached", steps.len(), steps.len() - ran);
    if by_record > 0 {
        text.push_str(&format!(", {by_record} of them although layers below changed"));
    }
    text.push_str(&format!("; {ran} ran"));
    if ran > 0 {
        text.push_str(&format!(", {}", seconds(std::time::Duration::from_millis(elapsed_ms))));
    }
    text.push('\n');
    text
}

/// The two largest units: `45 s`, `1 h 30 min`, `3 d`
fn duration(total: i64) -> String {
    let total = total.max(0);
    let units = [("d", i64::MAX, 86_400), ("h", 24, 3600), ("min", 60, 60), ("s", 60, 1)];
    let parts = units.map(|(unit, modulus, seconds)| (total / seconds % modulus, unit));
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(parts.len() - 1);
    let shown = parts.iter().skip(first).take(2).enumerate();
    let shown = shown.filter(|(position, (count, _))| *position == 0 || *count > 0);
    shown.map(|(_, (count, unit))| format!("{count} {unit}")).collect::<Vec<_>>().join(" ")
}

/// `2,590`
pub(crate) fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const OLD: &str = "blake3:ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12";

    fn changed([place, path, what, old, new]: [&str; 5]) -> Reason {
        let [place, path, what, old, new] = [place, path, what, old, new].map(str::to_owned);
        Reason::Changed(Changed { place, path, what, old, new })
    }

    /// A step of a report, for tests here and of commands.
    pub(crate) fn step(name: &str, line: usize, verdict: Verdict) -> StepReport {
        let instruction = "RUN".to_owned();
        let (name, diff_id, trees) = (name.to_owned(), String::new(), vec![String::new()]);
        let (record, network, elapsed_ms) = (None, None, 0);
        StepReport { name, line, instruction, verdict, diff_id, record, network, elapsed_ms, trees }
    }

    #[test]
    fn reasons() {
        let check = |reason: Reason, expect: Option<&str>, long: &str| {
            assert_eq!(short(&reason).as_deref(), expect);
            assert_eq!(again(&reason), expect.map(|text| format!("again: {text}")));
            assert_eq!(sentence(&Verdict::Ran { reason }), long);
        };
        check(Reason::First, None, "ran: no earlier result of it is known");
        let both =
            |reason: Reason, expect: &str| check(reason, Some(expect), &format!("ran again: {expect}"));
        both(Reason::NoCache, "earlier results are not used (`--no-cache` or its filter)");
        both(Reason::Never, "its comment `# mica: never` says so");
        both(Reason::NewBase, "it used the network, and the base image changed");
        let expired = |age_seconds, ttl_seconds| Reason::Expired { age_seconds, ttl_seconds };
        both(expired(10_800, 3600), "its result is 3 h old, older than 1 h");
        both(expired(3601, 3600), "its result is older than 1 h");
        both(expired(93_784, 90), "its result is 1 d 2 h old, older than 1 min 30 s");
        both(expired(5, -1), "its result is 5 s old, older than 0 s");
        both(expired(i64::MAX, 86_460), "its result is 106751991167300 d 15 h old, older than 1 d");
        let unrecorded = |why: &str| Reason::Unrecorded { why: why.to_owned() };
        both(unrecorded("what it copies\nchanged"), "what it copies\u{fffd}changed");
        let table = [
            (
                ["", "/app/a", "changed", OLD, "gone\x1b"],
                "/app/a changed",
                " (was blake3:ab12ab12ab12…, now gone\u{fffd})",
            ),
            (["the build context", "src/a.c", "changed", "", ""], "src/a.c in the build context changed", ""),
            (["stage build", "/x", "gone", "a file", ""], "/x in stage build is gone", " (was a file)"),
            (["", "/x", "new", "", "a file"], "/x is new", " (now a file)"),
            (["", "/x", "mode changed", "0644", "0755"], "mode of /x changed", " (was 0644, now 0755)"),
            (["", "/a\x1b[2Jb", "changed", "", ""], "/a\u{fffd}[2Jb changed", ""),
            (["", "/bin/cc", "is new", "", "cc"], "/bin/cc is new", ""),
            (["", "/bin/cc", "is something else", "cc", "cc"], "/bin/cc is something else", ""),
            (
                ["", "/x", "another kind", "file", "directory"],
                "/x: another kind",
                " (was file, now directory)",
            ),
            (["", "", "changed", "", ""], "/ changed", ""),
            (["the build context", "", "changed", "", ""], "the build context changed", ""),
        ];
        for (fields, expect, values) in table {
            check(changed(fields), Some(expect), &format!("ran again: {expect}{values}"));
        }
    }

    #[test]
    fn known_results() {
        let check = |verdict: Verdict, progress: &str, expect: &str| {
            assert_eq!((cached(&verdict), sentence(&verdict).as_str()), (progress, expect));
        };
        check(Verdict::Chain, "CACHED", "cached: the same step on the same layers was done before");
        check(Verdict::Shared, "CACHED", "cached: another step of this build did the same");
        let cache = || "local:/c".to_owned();
        let exact = Verdict::Imported { cache: cache(), by_record: false, unused: None };
        let expect = "cached: the same step on the same layers was done before; from cache local:/c";
        check(exact, "CACHED", expect);
        let record = Verdict::Imported { cache: cache(), by_record: true, unused: None };
        let expect = "cached: nothing it used changed; layers below it are others; from cache local:/c";
        check(record, "CACHED (nothing it used changed)", expect);
        let record = |unused: Option<(usize, &[&str])>, expect: &str| {
            let unused = unused.map(|(count, first)| UnusedChanges {
                count,
                first: first.iter().map(|path| (*path).to_owned()).collect(),
            });
            let expect = format!("cached: nothing it used changed; {expect}");
            check(Verdict::Record { unused }, "CACHED (nothing it used changed)", &expect);
        };
        record(None, "layers below it are others");
        record(Some((0, &[])), "below it nothing differs");
        record(Some((1, &["/a"])), "below it 1 path differs: /a");
        record(Some((2, &["/a", "/b\n"])), "below it 2 paths differ: /a, /b\u{fffd}");
        record(Some((1234, &["/a", "/b"])), "below it 1,234 paths differ: /a, /b, …");
        record(
            Some((7, &["/1", "/2", "/3", "/4", "/5", "/6", "/7"])),
            "below it 7 paths differ: /1, /2, /3, /4, /5, …",
        );
    }

    #[test]
    fn blocks() {
        let ran =
            step("[2/3] RUN npm ci", 3, Verdict::Ran { reason: changed(["", "/p", "changed", "a", "b"]) });
        let ran = StepReport { network: Some(true), elapsed_ms: 5040, ..ran };
        let steps = vec![ran, step("[3/3] RUN true", 7, Verdict::Record { unused: None })];
        let dockerfile = "Dockerfile".to_owned();
        let report = BuildReport { version: BuildReport::VERSION, dockerfile, built_unix_s: 0, steps };
        let all: Vec<&StepReport> = report.steps.iter().collect();
        assert_eq!(
            explanation(&report, &all),
            "[2/3] RUN npm ci\n  ran again: /p changed (was a, now b)\n  Dockerfile:3, took 5.0s, used the network\n\n\
             [3/3] RUN true\n  cached: nothing it used changed; layers below it are others\n  Dockerfile:7\n\n\
             2 steps: 1 cached, 1 of them although layers below changed; 1 ran, 5.0s\n"
        );
        let one = explanation(&report, &all[..1]);
        assert_eq!(
            one,
            "[2/3] RUN npm ci\n  ran again: /p changed (was a, now b)\n  Dockerfile:3, took 5.0s, used the network\n"
        );
        assert_eq!(
            explanation(&BuildReport { steps: Vec::new(), ..report }, &[]),
            "0 steps: 0 cached; 0 ran\n"
        );
    }

    #[test]
    fn counts() {
        for (count, expect) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(count), expect);
        }
    }
}
