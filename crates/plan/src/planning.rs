//! From a file to a graph: every needed stage behind those that it needs, every instruction of it in order.

use crate::environment::{Budget, Environment};
use crate::global_args::{hidden_args, means_something};
use crate::graph::{BaseImage, BaseRequest, FilesystemState, Graph, ImageKey, PlanOptions};
use crate::inspection::{IgnoreRules, Inspection};
use crate::path;
use crate::reach::{NeededInstruction, Reach};
use crate::source_date_epoch;
use crate::stage_planner::{Shared, StagePlanner, StageState};
use crate::stage_table::{SourceRef, StageBase};
use crate::step::{FileSource, Step};
use mica_diagnostic::Diagnostic;
use mica_dockerfile::instruction::{InstructionKind, Stage};
use mica_dockerfile::{Dockerfile, Finding};
use mica_oci::{ImageConfig, Platform};
use std::collections::HashSet;

/// PATH of an image that says nothing, as every BuildKit sets it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// More problems than this are not collected in a stage: nobody reads them.
const PROBLEMS_MAX: usize = 50;

/// The images that the target cannot be built without, each once, in order of mention. What triggers of base images
/// need is not among them: see [`needed_bases_with`].
pub fn needed_bases(
    dockerfile: &Dockerfile,
    options: &PlanOptions,
) -> Result<Vec<BaseRequest>, Vec<Diagnostic>> {
    needed_bases_with(dockerfile, options, &|_| None)
}

/// As [`needed_bases`], following the triggers of the images that `bases` knows. Ask again with the answers until
/// nothing new comes: a trigger may need a stage that nothing else does.
pub fn needed_bases_with<'a>(
    dockerfile: &Dockerfile,
    options: &PlanOptions,
    bases: &dyn Fn(&ImageKey) -> Option<&'a BaseImage>,
) -> Result<Vec<BaseRequest>, Vec<Diagnostic>> {
    Ok(Reach::new(dockerfile, options, bases)?.images(dockerfile))
}

/// The graph of the target. `bases` gives the images that [`needed_bases_with`] asked for with `is_base`.
pub fn plan<'a>(
    dockerfile: &Dockerfile,
    options: &PlanOptions,
    bases: &dyn Fn(&ImageKey) -> Option<&'a BaseImage>,
) -> Result<Graph, Vec<Diagnostic>> {
    plan_inspected(dockerfile, options, bases, None).0
}

/// As [`plan`], with what is probably not meant: the findings of all rules, in no order. There are findings whether there is a
/// graph or not; [`mica_dockerfile::Checks`] says which of them count.
pub fn plan_inspected<'a>(
    dockerfile: &Dockerfile,
    options: &PlanOptions,
    bases: &dyn Fn(&ImageKey) -> Option<&'a BaseImage>,
    ignore: Option<IgnoreRules<'_>>,
) -> (Result<Graph, Vec<Diagnostic>>, Vec<Finding>) {
    let inspection = Inspection::new(ignore);
    inspection.look_at_from_lines(dockerfile, options);
    let reach = match Reach::new(dockerfile, options, bases) {
        Ok(reach) => reach,
        Err(errors) => {
            inspection.look_at_text(dockerfile, &|_| true);
            return (Err(errors), inspection.finish());
        }
    };
    inspection.look_at_text(dockerfile, &|stage| reach.needed.get(stage).is_some_and(Option::is_some));
    let source_date_epoch = match source_date_epoch::resolve(dockerfile, options, &reach.global_args) {
        Ok(epoch) => epoch,
        Err(error) => return (Err(vec![error]), inspection.finish()),
    };
    let hidden_args = hidden_args(options);
    let shared = Shared {
        escape: dockerfile.escape,
        options,
        global_args: &reach.global_args,
        hidden_args: &hidden_args,
        budget: Budget::new(),
        inspection,
    };
    let mut steps = Vec::new();
    let mut states: Vec<Option<StageState>> = Vec::new();
    states.resize_with(dockerfile.stages.len(), || None);
    let mut errors = Vec::new();
    for position in reach.order.iter().copied() {
        let (Some(stage), Some(Some(instructions))) =
            (dockerfile.stages.get(position), reach.needed.get(position))
        else {
            continue;
        };
        let state = plan_stage(
            &shared,
            &reach,
            bases,
            position,
            stage,
            instructions,
            &states,
            &mut steps,
            &mut errors,
        );
        if let Some(slot) = states.get_mut(position) {
            *slot = state;
        }
    }
    errors.sort_by_key(|error: &Diagnostic| error.span.start);
    inspect_bases(&shared.inspection, dockerfile, &reach, bases);
    let target = states.into_iter().nth(reach.target).flatten();
    let planned = match target {
        Some(mut state) if errors.is_empty() => {
            finish_config(&mut state.config, options);
            let stage_names = reach.table.entries.iter().map(|entry| entry.name.clone()).collect();
            let unused_args = unused_args(dockerfile, &reach, options);
            let is_needed = |stage: usize| reach.needed.get(stage).is_some_and(Option::is_some);
            let args = shared.inspection.args(dockerfile, &reach.global_args, &is_needed);
            let target = state.into_result();
            Ok(Graph { steps, target, stage_names, source_date_epoch, unused_args, args })
        }
        _ => Err(errors),
    };
    (planned, shared.inspection.finish())
}

/// Names of the build arguments that no instruction of the file declares and that mean nothing by themselves.
fn unused_args(dockerfile: &Dockerfile, reach: &Reach<'_>, options: &PlanOptions) -> Vec<String> {
    let needed = reach.needed.iter().flatten().flatten().map(|needed| &needed.instruction);
    // A stage that the target does not need may be what the argument is for.
    let all = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    let mut declared: HashSet<&str> =
        dockerfile.meta_args.iter().map(|arg| arg.value.key.value.as_str()).collect();
    for instruction in needed.chain(all) {
        match &instruction.kind {
            InstructionKind::Arg(args) => declared.extend(args.iter().map(|arg| arg.key.value.as_str())),
            // It is for those who build on the image.
            InstructionKind::Onbuild(text) => {
                let words = text.split_ascii_whitespace().skip(1);
                declared.extend(words.map(|word| word.split('=').next().unwrap_or_default()));
            }
            _ => {}
        }
    }
    let mut unused: Vec<String> = Vec::new();
    for (name, _) in &options.build_args {
        if !declared.contains(name.as_str()) && !means_something(name) && !unused.contains(name) {
            unused.push(name.clone());
        }
    }
    unused
}

#[expect(clippy::too_many_arguments, reason = "the parts of one loop's body, borrowed differently")]
fn plan_stage<'a>(
    shared: &Shared<'_>,
    reach: &Reach<'_>,
    bases: &dyn Fn(&ImageKey) -> Option<&'a BaseImage>,
    position: usize,
    stage: &Stage,
    instructions: &[NeededInstruction],
    planned: &[Option<StageState>],
    steps: &mut Vec<Step>,
    errors: &mut Vec<Diagnostic>,
) -> Option<StageState> {
    let entry = reach.table.entries.get(position)?;
    let span = stage.from.base.span;
    let (state, counts_base) = match &entry.base {
        StageBase::Scratch => (empty_state(&entry.platform), false),
        StageBase::Files(name) => {
            let files = FilesystemState::NamedContext(name.clone());
            (StageState { files, ..empty_state(&entry.platform) }, true)
        }
        // The base was needed too, so without a state it had an error, which has been told.
        StageBase::Stage(base) => {
            let base = planned.get(*base)?.as_ref()?;
            shared.budget.spend(base.size_bytes());
            if let Err(error) = shared.budget.check(span) {
                errors.push(error);
                return None;
            }
            (inherited_state(base), false)
        }
        StageBase::Image(key) => match bases(key) {
            Some(base) => (image_state(key, base), true),
            None => {
                errors.push(Diagnostic::error(
                    span,
                    format!("the base image `{}` is not known", entry.base_text),
                ));
                return None;
            }
        },
    };
    let counted = instructions.iter().filter(|needed| {
        let kind = &needed.instruction.kind;
        // A trigger counts whatever it is, as with BuildKit.
        needed.is_trigger
            || matches!(
                kind,
                InstructionKind::Run(_) | InstructionKind::Copy(_) | InstructionKind::Workdir(_)
            )
    });
    let mut planner = StagePlanner {
        shared,
        state,
        position,
        name: if reach.is_single { String::new() } else { entry.name.clone() },
        total: counted.count() + usize::from(counts_base),
        named: usize::from(counts_base),
        platform: entry.platform.clone(),
        from_span: stage.from_span,
        has_cmd: false,
        is_trigger: false,
        steps,
    };
    let errors_before = errors.len();
    for needed in instructions {
        let sources: Option<Vec<Option<FileSource>>> =
            needed.sources.iter().map(|source| file_source(source, planned)).collect();
        // A source without a state had an error, which has been told.
        let Some(sources) = sources else { continue };
        if let Err(error) = planner.apply(needed, &sources) {
            errors.push(error);
            if errors.len() >= PROBLEMS_MAX {
                break;
            }
        }
    }
    let state = planner.state;
    (errors.len() == errors_before).then_some(state)
}

/// The files behind a `from`; `None` when that stage has failed.
fn file_source(source: &Option<SourceRef>, planned: &[Option<StageState>]) -> Option<Option<FileSource>> {
    match source {
        None => Some(None),
        Some(SourceRef::State(state)) => Some(Some(FileSource::State(state.clone()))),
        Some(SourceRef::Stage(stage)) => {
            let state = planned.get(*stage)?.as_ref()?;
            Some(Some(FileSource::State(state.files.clone())))
        }
    }
}

/// What `FROM scratch` begins with.
fn empty_state(platform: &Platform) -> StageState {
    let mut config = ImageConfig::new(platform);
    config.config.working_dir = "/".to_string();
    StageState {
        files: FilesystemState::Scratch,
        base: None,
        environment: with_path(&mut config),
        config,
        declared_args: Vec::new(),
        history: Vec::new(),
    }
}

/// What `FROM image` begins with.
fn image_state(key: &ImageKey, base: &BaseImage) -> StageState {
    let mut config = base.config.clone();
    config.created = None;
    config.history = Vec::new();
    config.rootfs = Default::default();
    config.config.on_build = Vec::new();
    if !config.config.working_dir.is_empty() {
        config.config.working_dir = path::join("/", &config.config.working_dir);
    }
    // An image without layers is as good as nothing, and can be the lower end of a chain without being fetched.
    let is_empty =
        base.config.rootfs.diff_ids.is_empty() && base.config.history.iter().all(|entry| entry.empty_layer);
    let files = if is_empty { FilesystemState::Scratch } else { FilesystemState::Image(key.clone()) };
    StageState {
        files,
        base: Some(key.clone()),
        environment: with_path(&mut config),
        config,
        declared_args: Vec::new(),
        history: Vec::new(),
    }
}

/// What `FROM stage` begins with: all of it but the triggers, which were run or are about to.
fn inherited_state(base: &StageState) -> StageState {
    let mut state = base.clone();
    state.config.config.on_build = Vec::new();
    state
}

/// The variables of the config, which gets a PATH if it has none.
fn with_path(config: &mut ImageConfig) -> Environment {
    let is_path = |entry: &String| entry == "PATH" || entry.starts_with("PATH=");
    if !config.config.env.iter().any(is_path) && config.os != "windows" {
        config.config.env.push(format!("PATH={DEFAULT_PATH}"));
    }
    let mut environment = Environment::default();
    for entry in &config.config.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        environment.set(name, value);
    }
    environment
}

fn set_platform(config: &mut ImageConfig, platform: &Platform) {
    config.os.clone_from(&platform.os);
    config.architecture.clone_from(&platform.architecture);
    config.variant.clone_from(&platform.variant);
    config.os_version.clone_from(&platform.os_version);
    config.os_features.clone_from(&platform.os_features);
}

/// Labels from outside, and the platform that was asked for.
fn finish_config(config: &mut ImageConfig, options: &PlanOptions) {
    for (name, value) in &options.labels {
        config.config.labels.insert(name.clone(), value.clone());
    }
    if options.platform_is_given {
        let same = config.os == options.platform.os && config.architecture == options.platform.architecture;
        let old = (config.variant.clone(), config.os_version.clone(), config.os_features.clone());
        set_platform(config, &options.platform);
        if same {
            config.variant = options.platform.variant.clone().or(old.0);
            config.os_version = options.platform.os_version.clone().or(old.1);
        }
        if options.platform.os_features.is_empty() {
            config.os_features = old.2;
        }
    }
}

/// Looks for bases that are for another platform than was asked for.
fn inspect_bases<'a>(
    inspection: &Inspection<'_>,
    dockerfile: &Dockerfile,
    reach: &Reach<'_>,
    bases: &dyn Fn(&ImageKey) -> Option<&'a BaseImage>,
) {
    for request in reach.images(dockerfile) {
        let Some(base) = bases(&request.key).filter(|_| request.is_base) else { continue };
        let found = base.config.platform();
        let wanted = &request.key.platform;
        if !found.os.is_empty() && !found.is_same(wanted) {
            let (found, wanted) = (found.to_string(), wanted.to_string());
            inspection.foreign_base(request.span, &request.as_written, &found, &wanted);
        }
    }
}
