//! Before a RUN for another platform: whether its program can run here. COPY, WORKDIR and all that only changes the config
//! need nothing of that.

use std::io::Read;

use mica_oci::Platform;
use mica_plan::{Operation, RunStep, Step};
use mica_runtime::emulation::{Emulators, HEADER_BYTES, Header, emulators, header_of, is_native, is_program};
use mica_tree::{Kind, MergedIndex};

use crate::build::Build;
use crate::error::StepError;
use crate::filesystem::Chain;
use crate::outcomes::Outcomes;

/// PATH of a process that has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Fails if the step is a RUN whose program cannot run here. Where that is not known, it is tried.
pub(crate) fn check(build: &Build<'_>, step: &Step, outcomes: &Outcomes) -> Result<(), StepError> {
    let Operation::Run(run) = &step.operation else { return Ok(()) };
    let (host, platform) = (Platform::host(), &step.platform);
    if platform.os != host.os {
        return Err(StepError::OtherSystem { platform: platform.to_string() });
    }
    if runs_by_itself(platform) {
        return Ok(());
    }
    let chain = build.chain(&step.parent, outcomes)?;
    let merged = chain.merged(&build.indexes)?;
    // A stage may hold programs of this machine whatever it is for.
    let program = program_of(&chain, &merged, run);
    if program.is_some_and(|header| is_native(&header)) {
        return Ok(());
    }
    let (Some(header), Emulators::Known(known)) = (program.or_else(|| header_of(platform)), emulators())
    else {
        return Ok(());
    };
    let mut absent = None;
    for emulator in known.iter().filter(|emulator| emulator.serves(&header)) {
        let path = emulator.interpreter.to_string_lossy();
        if emulator.is_fixed || merged.resolve(path.as_bytes(), true).is_ok_and(|found| found.is_some()) {
            return Ok(());
        }
        absent = Some(path.into_owned());
    }
    Err(StepError::NotEmulated { platform: platform.to_string(), absent })
}

/// Whether this machine's CPU runs programs for a platform. Whatever the variant: the CPU alone knows which of them it has.
fn runs_by_itself(platform: &Platform) -> bool {
    let architecture = platform.normalized().architecture;
    Platform::host().runs().iter().any(|own| own.architecture == architecture)
}

/// What it means that the kernel refuses the program of a RUN.
pub(crate) fn of_refusal(step: &Step, cause: StepError) -> StepError {
    let StepError::Runtime(error) = &cause else { return cause };
    if runs_by_itself(&step.platform) {
        return cause;
    }
    let platform = step.platform.to_string();
    if error.is_unknown_format() {
        return StepError::NotEmulated { platform, absent: None };
    }
    // Of several emulators the kernel takes the one that came last.
    if error.is_interpreter_missing()
        && let (Some(header), Emulators::Known(known)) = (header_of(&step.platform), emulators())
        && let Some(emulator) = known.iter().find(|known| !known.is_fixed && known.serves(&header))
    {
        let absent = Some(emulator.interpreter.to_string_lossy().into_owned());
        return StepError::NotEmulated { platform, absent };
    }
    cause
}

/// How the program of a RUN begins, if the files below hold it and it is no script.
fn program_of(chain: &Chain, merged: &MergedIndex, run: &RunStep) -> Option<Header> {
    let command = run.argv.first()?;
    let path = run.environment.iter().rev().find(|(name, _)| name == "PATH");
    let path = path.map_or(DEFAULT_PATH, |(_, value)| value.as_str());
    let candidates: Vec<String> = match (command.starts_with('/'), command.contains('/')) {
        (true, _) => vec![command.clone()],
        (false, true) => vec![format!("{}/{command}", run.directory)],
        (false, false) => path.split(':').map(|directory| format!("{directory}/{command}")).collect(),
    };
    let found = candidates.iter().find_map(|candidate| {
        let found = merged.resolve(candidate.as_bytes(), true).ok()??;
        matches!(found.entry?.kind, Kind::File { .. } | Kind::Hardlink { .. }).then_some(found.path)
    })?;
    let mut header = [0; HEADER_BYTES];
    chain.open_file(merged, &found).ok()?.read_exact(&mut header).ok()?;
    is_program(&header).then_some(header)
}
