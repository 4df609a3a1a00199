//! A cache in a bucket.

use mica_testkit::S3Server;

use crate::support::{How, Machine, can_build};

const ID: &str = "AKIDHIDDEN";
const SECRET: &str = "hidden-secret";

#[test]
fn root_a_second_machine_has_the_same_hits_through_a_bucket() {
    if !can_build() {
        return;
    }
    let server = match S3Server::start("caches") {
        Ok(server) => server,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    let url = server.url();
    let keys =
        format!("type=s3,bucket=caches,region=r,endpoint_url={url},use_path_style=true,name=main,prefix=p/");
    let login = format!("access_key_id={ID},secret_access_key={SECRET}");
    let here = Machine::new();
    let built = here.build(&[&format!("--cache-to={keys},{login},mode=max")]);
    assert!(built.stderr.contains("cache s3:caches/p/manifests/main: 6 results"), "{}", built.stderr);
    // The environment's credentials do as well.
    let there = Machine::new();
    let mut command = there.command(&[&format!("--cache-from={keys}")]);
    command.env("AWS_ACCESS_KEY_ID", ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
    let outcome = mica_testkit::run_bounded(command, std::time::Duration::from_secs(300));
    assert!(
        outcome.code == 0 && outcome.stdout.matches("s3:caches/p/manifests/main").count() == 6,
        "{outcome}"
    );
    let edited = Machine::new();
    edited.write("unused", "edited\n");
    let built = edited.build(&[&format!("--cache-from={keys},{login}")]);
    assert!(matches!(built.steps[2], How::FromCacheByRecord(_)), "{:?}", built.steps);
    // A bucket that is not there, a server that is not there.
    let absent = keys.replace("bucket=caches", "bucket=absent");
    let dead = keys.replace(&url, "http://127.0.0.1:1");
    for keys in [absent, dead] {
        let machine = Machine::new();
        let both = [format!("--cache-from={keys},{login}"), format!("--cache-to={keys},{login}")];
        let built = machine.build(&[&both[0], &both[1]]);
        built.check_all_ran();
        assert!(built.stderr.contains("warning: cannot export the cache to s3:"), "{}", built.stderr);
        assert!(!built.stderr.contains(SECRET) && !built.stderr.contains(ID), "{}", built.stderr);
    }
}
