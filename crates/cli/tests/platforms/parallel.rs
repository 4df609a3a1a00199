//! Stages that need nothing of each other run at the same time.

use mica_testkit::{Need, missing};

use crate::{Project, mica_with_busybox};

/// As many stages as every machine runs at once, each of which ends only when it has seen all the others begin.
#[test]
fn stages_that_wait_for_each_other_meet() {
    if let Some(reason) = missing(&[Need::Root]) {
        return println!("skipped: {reason}");
    }
    let mica = match mica_with_busybox() {
        Ok(mica) => mica,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let stages = 8;
    let mut dockerfile = String::new();
    for stage in 1..=stages {
        // Bounded, so that a build that runs them one after the other fails and does not hang.
        dockerfile.push_str(&format!(
            "FROM box AS s{stage}\nRUN --mount=type=cache,target=/meet \\\n\
             touch /meet/{stage}; for i in $(seq 600); do \\\n\
             [ $(ls /meet | wc -l) = {stages} ] && touch /o{stage} && exit 0; sleep 0.1; done; exit 1\n"
        ));
    }
    dockerfile.push_str("FROM scratch\n");
    for stage in 1..=stages {
        dockerfile.push_str(&format!("COPY --from=s{stage} /o{stage} /\n"));
    }
    Project::new(&dockerfile).ok(&mica, &["-t", "x"]);
    mica.check_nothing_left();
}

/// The same for the platforms of one build.
#[test]
fn platforms_that_wait_for_each_other_meet() {
    if let Some(reason) = missing(&[Need::Root]) {
        return println!("skipped: {reason}");
    }
    let mica = match mica_with_busybox() {
        Ok(mica) => mica,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let project = Project::new(
        "FROM --platform=$BUILDPLATFORM box AS cross\nARG TARGETARCH\n\
         RUN --mount=type=cache,target=/meet touch /meet/$TARGETARCH; \
         for i in $(seq 600); do [ $(ls /meet | wc -l) = 3 ] && touch /o && exit 0; sleep 0.1; done; exit 1\n\
         FROM scratch\nCOPY --from=cross /o /\n",
    );
    project.ok(&mica, &["--platform=linux/amd64,linux/arm64,linux/riscv64", "-t", "x"]);
    mica.check_nothing_left();
}
