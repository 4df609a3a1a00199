//! Containers made from a statically linked busybox. The program has a `main` of its own, because the runtime executes
//! it again as its helper; the words on its command line choose the tests whose names hold one of them.

mod bench;
mod limits;
mod process;
mod rootfs;
mod rootless;
mod sockets;
mod support;
mod trees;

type Test = (&'static str, fn());

fn main() {
    mica_runtime::init_main_if_requested();
    support::child_main_if_requested();
    rootfs::child_main_if_requested();
    rootless::child_main_if_requested();
    sockets::child_main_if_requested();
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let tests: Vec<Test> = [
        process::TESTS,
        rootfs::TESTS,
        trees::TESTS,
        sockets::TESTS,
        limits::TESTS,
        rootless::TESTS,
        bench::TESTS,
    ]
    .concat();
    if std::env::args().any(|argument| argument == "--list") {
        for (name, _) in &tests {
            println!("{name}: test");
        }
        return;
    }
    if let Some(reason) = support::reason_to_skip() {
        println!("skipped: {reason}");
        return;
    }
    let mut failed = Vec::new();
    for (name, test) in tests {
        if !words.is_empty() && !words.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        // With one thread the helper is a fork, with more it is executed.
        let alone = std::panic::catch_unwind(test).is_ok();
        let threaded = std::thread::spawn(test).join().is_ok();
        for (way, passed) in [("one thread", alone), ("threads", threaded)] {
            println!("test {name} ({way}) ... {}", if passed { "ok" } else { "FAILED" });
            if !passed {
                failed.push(name);
            }
        }
    }
    let left = support::leftovers();
    if !left.is_empty() {
        println!("left behind: {left:?}");
        failed.push("nothing is left behind");
    }
    if !failed.is_empty() {
        println!("failed: {failed:?}");
        std::process::exit(1);
    }
}
