//! Advice on programs of other CPUs and systems.

use mica_runtime::RuntimeError;

/// For a RUN of another operating system.
pub(super) const OTHER_SYSTEM: &str = "COPY, ADD, WORKDIR and what only changes the config work for every system; make files in a stage \
    `FROM --platform=$BUILDPLATFORM` and copy them with `COPY --from`";

/// How emulators are registered.
fn registration(architecture: &str) -> String {
    format!(
        "register emulators, as root, with one of: `apt-get install qemu-user-static binfmt-support` (Debian, Ubuntu), \
         `dnf install qemu-user-static` (Fedora), `mica run --privileged --rm tonistiigi/binfmt --install {architecture}`"
    )
}

/// For a RUN whose program needs an emulator. `is_absent`: one is registered, but would have to be in the image.
pub(super) fn advice_on_emulation(platform: &str, is_absent: bool) -> String {
    let architecture = platform.split('/').nth(1).unwrap_or("all");
    let mend = match is_absent {
        true => format!("copy the emulator to that path, or {} (flag `F`)", registration(architecture)),
        false => registration(architecture),
    };
    format!("{mend}; a stage that only makes files runs here with `FROM --platform=$BUILDPLATFORM`")
}

/// For a program that the kernel does not know how to run.
pub(super) fn advice_on_refusal(error: &RuntimeError) -> Option<String> {
    error.is_unknown_format().then(|| {
        format!("is it a script, it must begin with `#!`; is it for another CPU, {}", registration("all"))
    })
}
