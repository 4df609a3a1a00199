//! RUN as a step.

use crate::global_args::build_arg;
use crate::path;
use crate::stage_planner::StagePlanner;
use crate::step::{FileSource, Operation, RunStep, ScriptFile, StepMount};
use mica_diagnostic::{Diagnostic, Span};
use mica_dockerfile::instruction::{Command, Instruction, Run, RunMount, RunMountKind, RunNetwork, Spanned};

impl StagePlanner<'_> {
    /// Adds the step of a RUN.
    pub(crate) fn run(
        &mut self,
        run: &Run,
        instruction: &Instruction,
        sources: &[Option<FileSource>],
    ) -> Result<(), Diagnostic> {
        let (argv, script) = self.command(run);
        let mut mounts = Vec::with_capacity(run.mounts.len());
        let mut sockets = 0;
        for (position, mount) in run.mounts.iter().enumerate() {
            let from = sources.get(position).cloned().flatten();
            let mount = self.mount(mount, from, sockets)?;
            sockets += usize::from(matches!(mount, StepMount::Ssh { .. }));
            mounts.push(mount);
        }
        let devices =
            run.devices.iter().map(|word| self.expander().word(word)).collect::<Result<Vec<_>, _>>()?;
        // Once in the step, and perhaps again in the history.
        self.shared.budget.spend(2 * self.state.environment.size_bytes());
        self.shared.budget.check(instruction.span)?;
        let environment = self.state.environment.entries().to_vec();
        let hidden =
            self.shared.hidden_args.iter().filter(|(name, _)| self.state.environment.get(name).is_none());
        let hidden_environment = hidden.cloned().collect();
        let mut text = self.expander().display(&instruction.text);
        if let (Some(heredoc), true) = (run.heredocs.first(), is_heredoc_only(run)) {
            text.push_str(&format!(" ({})", summary(&heredoc.content)));
        }
        let created_by = format!("RUN {}{} # buildkit", self.args_in_history(), argv.join(" "));
        let step = RunStep {
            argv,
            environment,
            hidden_environment,
            user: self.state.config.config.user.clone(),
            directory: self.directory(),
            mounts,
            network: run.network.as_ref().map_or(RunNetwork::Default, |network| network.value),
            insecure: run.insecure,
            devices,
            retries: run.retries,
            script,
        };
        self.add_step(Operation::Run(step), &text, instruction, created_by);
        Ok(())
    }

    /// What is run, and the file that it needs for that.
    fn command(&self, run: &Run) -> (Vec<String>, Option<ScriptFile>) {
        let text = match (&run.command, run.heredocs.first()) {
            (Command::Exec(words), _) => return (words.clone(), None),
            (Command::Shell(text), None) => return (self.shell_words(text), None),
            (Command::Shell(_), Some(heredoc)) if is_heredoc_only(run) => {
                if heredoc.content.starts_with("#!") {
                    let path = path::join("/dev/pipes", heredoc.name.rsplit('/').next().unwrap_or_default());
                    // Through the shell, which is of no use, but is in every history that BuildKit wrote.
                    let argv = self.shell_words(&path);
                    return (argv, Some(ScriptFile { path, content: heredoc.content.clone() }));
                }
                heredoc.content.clone()
            }
            // The shell reads the heredocs itself, so they are put back as they were.
            (Command::Shell(text), Some(_)) => run
                .heredocs
                .iter()
                .fold(text.clone(), |text, heredoc| format!("{text}\n{}{}", heredoc.content, heredoc.name)),
        };
        (self.shell_words(&text), None)
    }

    fn mount(
        &self,
        mount: &Spanned<RunMount>,
        from: Option<FileSource>,
        sockets_before: usize,
    ) -> Result<StepMount, Diagnostic> {
        let span = mount.span;
        // Parsed again from the text, because options that are not text may hold variables too.
        let mount = &self.expander().mount(&mount.value.text, span)?;
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (target, source, id) = (given(&mount.target), given(&mount.source), given(&mount.id));
        let directory = self.directory();
        let needed_target = || absolute_target(target.as_deref(), &directory, span);
        let source_path = || path::join("/", source.as_deref().unwrap_or_default());
        let mode = |default: u32| mount.mode.unwrap_or(default);
        let (uid, gid) = (mount.uid.unwrap_or_default(), mount.gid.unwrap_or_default());
        let place = self.place(span);
        Ok(match mount.kind {
            RunMountKind::Bind => StepMount::Bind {
                target: needed_target()?,
                from: from.unwrap_or(FileSource::Context),
                source: source_path(),
                read_write: !mount.read_only,
                span: place,
            },
            RunMountKind::Cache => {
                let target = needed_target()?;
                let id = id.unwrap_or_else(|| target.clone());
                let namespace = build_arg(self.shared.options, "BUILDKIT_CACHE_MOUNT_NS");
                StepMount::Cache {
                    id: match namespace.filter(|namespace| !namespace.is_empty()) {
                        Some(namespace) => format!("{namespace}/{id}"),
                        None => id,
                    },
                    target,
                    from,
                    source: source_path(),
                    sharing: mount.sharing,
                    read_only: mount.read_only,
                    mode: mode(0o755),
                    uid,
                    gid,
                    span: place,
                }
            }
            RunMountKind::Tmpfs => {
                StepMount::Tmpfs { target: needed_target()?, size_bytes: mount.size_bytes }
            }
            RunMountKind::Secret => {
                let Some(id) =
                    source.or(id).or_else(|| target.as_deref().map(|target| base_name(target).to_string()))
                else {
                    return Err(
                        Diagnostic::error(span, "a secret needs an id or a target").hint("add `id=NAME`")
                    );
                };
                let environment_name = given(&mount.env);
                let target = match (&target, &environment_name) {
                    (Some(_), _) => Some(needed_target()?),
                    (None, None) => Some(format!("/run/secrets/{}", base_name(&id))),
                    (None, Some(_)) => None,
                };
                StepMount::Secret {
                    id,
                    target,
                    environment_name,
                    required: mount.required,
                    mode: mode(0o400),
                    uid,
                    gid,
                    span: place,
                }
            }
            RunMountKind::Ssh => StepMount::Ssh {
                id: id.unwrap_or_else(|| "default".to_string()),
                target: match target {
                    Some(_) => needed_target()?,
                    None => format!("/run/buildkit/ssh_agent.{sockets_before}"),
                },
                required: mount.required,
                mode: mode(0o600),
                uid,
                gid,
                span: place,
            },
        })
    }
}

/// Whether the command is one heredoc and nothing else.
fn is_heredoc_only(run: &Run) -> bool {
    run.heredocs.len() == 1 && matches!(&run.command, Command::Shell(text) if text.trim().is_empty())
}

fn absolute_target(target: Option<&str>, directory: &str, span: Span) -> Result<String, Diagnostic> {
    let Some(target) = target else {
        return Err(Diagnostic::error(span, "the mount has no target").hint("add `target=PATH`"));
    };
    let absolute = path::join(directory, target);
    if absolute == "/" {
        return Err(Diagnostic::error(
            span,
            format!("a mount cannot hide everything: the target `{target}` is `/`"),
        ));
    }
    Ok(absolute)
}

fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// The first line of a heredoc, for names of steps.
fn summary(content: &str) -> String {
    let mut lines = content.trim().lines();
    let first = lines.next().unwrap_or_default();
    if lines.next().is_some() { format!("{first}...") } else { first.to_string() }
}
