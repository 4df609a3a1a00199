//! How long a container takes: information, not an assertion.

use std::time::Instant;

use mica_runtime::spec::{Network, Rootfs};
use mica_runtime::{Stdio, Stream};

use crate::Test;
use crate::support::Scratch;

pub const TESTS: &[Test] = &[("root_median_time_is_told", root_median_time_is_told)];

fn root_median_time_is_told() {
    for (name, network) in [("new network", Network::New), ("host network", Network::Host)] {
        let mut totals = Vec::new();
        let mut parts = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..40 {
            let scratch = Scratch::new();
            let mut spec = scratch.spec(&["/bin/true"]);
            spec.namespaces.network = network.clone();
            if let Rootfs::Overlay { volatile, .. } = &mut spec.rootfs {
                *volatile = true;
            }
            let begin = Instant::now();
            let stdio = Stdio { stdin: Stream::Null, stdout: Stream::Null, stderr: Stream::Null };
            let created = mica_runtime::spawn(&spec, stdio).unwrap();
            let ready = begin.elapsed();
            let mut running = created.start().unwrap();
            let started = begin.elapsed();
            assert_eq!(running.wait().unwrap().code(), 0);
            totals.push(begin.elapsed());
            for (part, time) in parts.iter_mut().zip([ready, started - ready, begin.elapsed() - started]) {
                part.push(time);
            }
        }
        totals.sort();
        let [ready, started, ended] = parts.map(|mut part| {
            part.sort();
            part[part.len() / 2]
        });
        println!(
            "/bin/true, {name}: median {:?}, min {:?} (spawn {ready:?}, start {started:?}, wait {ended:?})",
            totals[totals.len() / 2],
            totals[0],
        );
    }
}
