use super::*;
use crate::Cli;
use clap::CommandFactory;

fn words(line: &str) -> Vec<OsString> {
    ["mica"].into_iter().chain(line.split(' ').filter(|word| !word.is_empty())).map(OsString::from).collect()
}

/// What the innermost command has under `names`; or the error's first line.
fn flags(line: &str, names: &[&str]) -> String {
    let found = match parse(Cli::command(), &words(line)) {
        Ok(found) => found,
        Err(error) => return error.to_string().lines().next().unwrap_or_default().to_owned(),
    };
    let mut found = &found;
    while let Some((_, below)) = found.subcommand() {
        found = below;
    }
    names.iter().map(|name| if found.get_flag(name) { '1' } else { '0' }).collect()
}

#[test]
fn flags_take_gos_booleans() {
    let check = |line: &str, names: &[&str], expect: &str| assert_eq!(flags(line, names), expect, "{line}");
    check("build --no-cache=false --push=true .", &["no_cache", "push"], "01");
    check("build -q=true --load=T --squash=0 .", &["quiet", "load", "squash"], "110");
    check("build --push --push=false .", &["push"], "0");
    check("build --push=false --push .", &["push"], "1");
    check("build --no-cache --check=true .", &["no_cache", "check", "push"], "110");
    check("buildx build --load=TRUE --push=F .", &["load", "push"], "10");
    check("builder prune -af=1", &["all", "force"], "11");
    check("image build --force-rm=true .", &["force_rm"], "1");
    // Clusters go on working, and so does what stands behind the image.
    check("run -it -e A=1 --rm=true image --push=0", &["tty", "interactive", "rm"], "111");
    check("run -dit --init=f image", &["detach", "interactive", "tty", "init"], "1110");
    check("run --rm=false -i image", &["rm", "interactive"], "01");
    check("run --sig-proxy=0 image", &["sig_proxy"], "0");
    check("container create --read-only=1 image", &["read_only"], "1");
    check("exec -it=false container sh", &["interactive", "tty"], "10");
    check("rmi -f=true image", &["force"], "1");
    check("images --no-trunc=false -q=true", &["no_trunc", "quiet"], "01");
    check("history -H=0 image", &["human"], "0");
    check("manifest create --amend=true list image", &["amend", "insecure"], "10");
    check("system prune --volumes=false -a=t", &["volumes", "all"], "01");
    let error = "error: invalid value 'maybe' for '--push[=<BOOL>]': neither `true` nor `false`";
    check("build --push=maybe --no-cache=1 .", &[], error);
    let error = "error: unexpected value 'maybe' for '--push' found; no more were expected";
    check("build --push=maybe .", &[], error);
}

#[test]
fn flags_that_may_have_no_value_take_gos_booleans() {
    let check = |line: &str, name: &str, expect: Option<bool>| {
        let found = parse(Cli::command(), &words(line)).unwrap_or_else(|error| panic!("{line}: {error}"));
        let (_, below) = found.subcommand().unwrap();
        assert_eq!(below.get_one::<bool>(name).copied(), expect, "{line}");
    };
    check("build --pull=1 .", "pull", Some(true));
    check("build --pull=F .", "pull", Some(false));
    check("build --push=1 --pull .", "pull", Some(true));
    check("build --push=1 .", "pull", None);
    check("build --rm=0 .", "rm", Some(false));
}

#[test]
fn a_value_that_is_off_conflicts_with_nothing() {
    for line in ["build --quiet=false --explain .", "copy --all=false --platform linux/arm64 a b"] {
        assert!(parse(Cli::command(), &words(line)).is_ok(), "{line}");
    }
}

#[test]
fn the_command_is_told_from_values_and_arguments() {
    let check = |line: &str, path: &str, code: u8| {
        let found = command_path(&Cli::command(), &words(line));
        assert_eq!((found.join(" ").as_str(), usage_code(&found)), (path, code), "{line}");
    };
    check("run --nonsense image", "run", 125);
    check("--root /x -D create --nonsense", "create", 125);
    check("--root=/x -H tcp://run run", "run", 125);
    check("-l debug container create -x", "container create", 125);
    check("-Dl debug -ldebug run", "run", 125);
    check("buildx create --nonsense", "buildx create", 2);
    check("manifest create --nonsense", "manifest create", 2);
    check("build --nonsense run", "build", 2);
    check("--root run images --nonsense", "images", 2);
    check("nonsense run", "", 2);
    check("", "", 2);
}

#[test]
fn usage_is_one_short_line() {
    let check = |line: &str, usage: &str| {
        let words = words(line);
        let path = command_path(&Cli::command(), &words);
        let error = parse(Cli::command(), &words).unwrap_err();
        let shown = with_short_usage(error, Cli::command(), &path).to_string();
        assert!(shown.contains(&format!("\n\nUsage: {usage}\n")), "{line}: {shown}");
        assert!(shown.lines().all(|line| line.len() < 120), "{line}: {shown}");
    };
    check("build --nonsense .", "mica build [OPTIONS] PATH | URL | -");
    check("build --push=maybe .", "mica build [OPTIONS] PATH | URL | -");
    check("run --nonsense image", "mica run [OPTIONS] IMAGE [COMMAND] [ARG...]");
    check("run", "mica run [OPTIONS] IMAGE [COMMAND] [ARG...]");
    check("create --name x --nonsense image", "mica create [OPTIONS] IMAGE [COMMAND] [ARG...]");
    check("images --nonsense", "mica images [OPTIONS] [REPOSITORY[:TAG]]");
    check("image rm --nonsense", "mica image rm [OPTIONS] <IMAGE>...");
}

#[test]
fn the_command_is_sound() {
    with_boolean_values(Cli::command()).debug_assert();
    Cli::command().debug_assert();
}
