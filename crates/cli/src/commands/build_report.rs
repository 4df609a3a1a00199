//! The report that a build kept beside its image, and which of its steps somebody means.

use mica_build::{BuildReport, StepReport};
use mica_store::Store;

use crate::error::CliError;
use crate::progress::printable;

/// Names of steps that are listed where one was not found.
const CANDIDATES_MAX: usize = 50;

/// The report of the last build of an image.
pub(crate) fn read(store: &Store, image: &str) -> Result<BuildReport, CliError> {
    let id = mica_image::require(store, image)?;
    let Some(bytes) = store.build_report(&id)? else {
        return Err(CliError::new(format!("how `{image}` was built is not known: it was not built in this store"))
            .hint("`mica build` keeps a report of each image that it makes; `mica history` shows what any image tells of itself"));
    };
    decode(&bytes).map_err(|why| {
        CliError::new(format!("the report of the build of `{image}` is not readable: {why}"))
            .hint("build the image once more with this mica")
    })
}

fn decode(bytes: &[u8]) -> Result<BuildReport, String> {
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    // Before the rest, which another version may have changed.
    let version = value.get("version").and_then(serde_json::Value::as_u64);
    if version != Some(BuildReport::VERSION.into()) {
        let version = version.map_or_else(|| "none".to_owned(), |version| version.to_string());
        return Err(format!("its version is {version}, and this mica reads {}", BuildReport::VERSION));
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// The steps that are meant: all of them, or the one that `wanted` says: its number as in `[3/5]`, its line as `:12`, its
/// name or a part of it that no other has.
pub(crate) fn choose<'a>(
    report: &'a BuildReport,
    wanted: Option<&str>,
) -> Result<Vec<&'a StepReport>, CliError> {
    let Some(wanted) = wanted else { return Ok(report.steps.iter().collect()) };
    let pick = |is_meant: &dyn Fn(&StepReport) -> bool| {
        report.steps.iter().filter(|step| is_meant(step)).collect::<Vec<_>>()
    };
    let line = wanted.strip_prefix(':').and_then(|line| line.parse::<usize>().ok());
    let number = wanted.parse::<usize>().ok();
    let mut found = match (line, number) {
        (Some(line), _) => pick(&|step| step.line == line),
        (_, Some(wanted)) => pick(&|step| number_of(&step.name) == Some(wanted)),
        _ => pick(&|step| step.name == wanted),
    };
    if found.is_empty() && line.is_none() && number.is_none() && !wanted.is_empty() {
        found = pick(&|step| step.name.contains(wanted));
    }
    let (what, listed) = match found.as_slice() {
        [_] => return Ok(found),
        [] => (format!("no step is `{}`", printable(wanted)), pick(&|_| true)),
        _ => (format!("`{}` can be {} steps", printable(wanted), found.len()), found),
    };
    Err(CliError::new(format!("{what}; {}", list(&listed)))
        .hint("name a step by its number, by its line (`:12`), or by a part of its name that no other has"))
}

/// The number in `[build 3/5] RUN make`.
fn number_of(name: &str) -> Option<usize> {
    let (inside, _) = name.strip_prefix('[')?.split_once(']')?;
    inside.rsplit(' ').next()?.split_once('/')?.0.parse().ok()
}

fn list(steps: &[&StepReport]) -> String {
    if steps.is_empty() {
        return "the build had none".to_owned();
    }
    let mut text = "there are:".to_owned();
    for step in steps.iter().take(CANDIDATES_MAX) {
        text.push_str(&format!("\n  {} (:{})", printable(&step.name), step.line));
    }
    if steps.len() > CANDIDATES_MAX {
        text.push_str(&format!("\n  and {} more", steps.len() - CANDIDATES_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::verdict::tests::step;
    use mica_build::Verdict;

    fn report(steps: &[(&str, usize)]) -> BuildReport {
        let steps = steps.iter().map(|(name, line)| step(name, *line, Verdict::Chain)).collect();
        BuildReport {
            version: BuildReport::VERSION,
            dockerfile: "Dockerfile".to_owned(),
            built_unix_s: 7,
            steps,
        }
    }

    #[test]
    fn a_step_is_named_in_many_ways() {
        let report = report(&[
            ("[build 2/3] RUN make", 2),
            ("[build 3/3] RUN make install", 3),
            ("[stage-1  2/12] COPY --from=build /x /x", 6),
            ("[stage-1 10/12] RUN true", 14),
            ("RUN 7", 20),
        ]);
        let check = |wanted: &str, expect: Result<&str, &str>| {
            let found = choose(&report, Some(wanted));
            let found =
                found.as_deref().map(|steps| steps.iter().map(|step| step.name.as_str()).collect::<String>());
            match (found, expect) {
                (Ok(found), Ok(expect)) => assert_eq!(found, expect, "{wanted}"),
                (Err(error), Err(expect)) => assert!(error.message.contains(expect), "{}", error.message),
                (found, _) => panic!("{wanted}: {found:?}"),
            }
        };
        check("10", Ok("[stage-1 10/12] RUN true"));
        check("3", Ok("[build 3/3] RUN make install"));
        check(":6", Ok("[stage-1  2/12] COPY --from=build /x /x"));
        check("COPY", Ok("[stage-1  2/12] COPY --from=build /x /x"));
        check("[build 2/3] RUN make", Ok("[build 2/3] RUN make"));
        check("build 3/3", Ok("[build 3/3] RUN make install"));
        check(
            "2",
            Err("`2` can be 2 steps; there are:\n  [build 2/3] RUN make (:2)\n  [stage-1  2/12] COPY"),
        );
        check("RUN make", Err("`RUN make` can be 2 steps; there are:\n  [build 2/3] RUN make (:2)\n"));
        check("7", Err("no step is `7`; there are:\n  [build 2/3]"));
        check(":15", Err("no step is `:15`"));
        check("", Err("no step is ``"));
        check("99999999999999999999999", Err("no step is"));
        check("x\x1b[2J", Err("no step is `x\u{fffd}[2J`"));
        assert_eq!(choose(&report, None).map(|steps| steps.len()).ok(), Some(5));
    }

    #[test]
    fn reports_of_no_and_of_many_steps() {
        let error = |count: usize| {
            let report = report(&vec![("[1/2] RUN a", 1); count]);
            choose(&report, Some("b")).err().map(|error| error.message).unwrap_or_default()
        };
        assert_eq!(error(0), "no step is `b`; the build had none");
        assert_eq!(error(60).lines().count(), 52);
        assert!(error(60).ends_with("\n  and 10 more"));
    }

    #[test]
    fn reports_are_checked() {
        let good = serde_json::to_string(&report(&[("[2/2] RUN a", 1)])).unwrap_or_default();
        assert_eq!(decode(good.as_bytes()).map(|report| report.steps.len()), Ok(1));
        let check = |text: &str, expect: &str| {
            let error = decode(text.as_bytes()).expect_err(text);
            assert!(error.contains(expect), "{error}");
        };
        check("", "EOF");
        check("{\"version\":1}", "missing field");
        check("{\"version\":9,\"steps\":7}", "its version is 9, and this mica reads 1");
        check("[]", "its version is none");
        check("{\"version\":-1}", "its version is none");
        check(&good.replace("chain", "magic"), "unknown variant `magic`");
        check(&"[".repeat(100_000), "recursion limit");
    }
}
