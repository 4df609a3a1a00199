//! Instructions that change what the image says, and not its files.

use crate::go_format::{duration, plain_list, quoted_list};
use crate::path;
use crate::ports::parse_ports;
use crate::signal::is_signal;
use crate::stage_planner::StagePlanner;
use crate::step::{Operation, WorkdirStep};
use mica_diagnostic::Diagnostic;
use mica_dockerfile::instruction::{Command, Healthcheck, Instruction, InstructionKind, KeyValue, Word};
use mica_oci::Empty;

/// Most ports that one EXPOSE may name: every port of every protocol. More can only be repetition, and a small file
/// could ask for billions.
const PORTS_MAX: usize = 3 * 65_536;

/// Longest path that Linux takes (PATH_MAX).
const PATH_BYTES_MAX: usize = 4096;

impl StagePlanner<'_> {
    /// Does an instruction that only changes the config.
    pub(crate) fn change_config(&mut self, instruction: &Instruction) -> Result<(), Diagnostic> {
        let created_by = match &instruction.kind {
            InstructionKind::Env(variables) => self.env(variables)?,
            InstructionKind::Label(labels) => self.label(labels)?,
            InstructionKind::Maintainer(author) => {
                self.state.config.author = Some(author.clone());
                format!("MAINTAINER {author}")
            }
            InstructionKind::Cmd(command) => {
                let words = self.with_shell(command);
                let created_by = format!("CMD {}", quoted_list(&words));
                self.state.config.config.cmd = Some(words);
                self.state.config.config.args_escaped = true;
                self.has_cmd = true;
                created_by
            }
            InstructionKind::Entrypoint(command) => {
                let words = self.with_shell(command);
                let created_by = format!("ENTRYPOINT {}", quoted_list(&words));
                self.state.config.config.entrypoint = Some(words);
                if !self.has_cmd {
                    // A CMD of the base was meant as arguments of the base's ENTRYPOINT.
                    self.state.config.config.cmd = None;
                }
                created_by
            }
            InstructionKind::Healthcheck(healthcheck) => self.healthcheck(healthcheck),
            InstructionKind::Expose(words) => self.expose(words)?,
            InstructionKind::User(word) => {
                let user = self.expander().word(word)?;
                self.state.config.config.user.clone_from(&user);
                format!("USER {user}")
            }
            InstructionKind::Volume(words) => self.volume(words)?,
            InstructionKind::Stopsignal(word) => {
                let signal = self.expander().word(word)?;
                if !is_signal(&signal) {
                    return Err(Diagnostic::error(word.span, format!("`{signal}` is not a signal")));
                }
                self.state.config.config.stop_signal.clone_from(&signal);
                format!("STOPSIGNAL {signal}")
            }
            InstructionKind::Shell(words) => {
                self.state.config.config.shell = words.clone();
                format!("SHELL {}", plain_list(words))
            }
            InstructionKind::Onbuild(text) => {
                // Has no entry in the history, as with BuildKit.
                self.state.config.config.on_build.push(text.clone());
                return Ok(());
            }
            InstructionKind::Run(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Workdir(_)
            | InstructionKind::Arg(_) => {
                return Ok(());
            }
        };
        self.add_history(created_by, None);
        Ok(())
    }

    /// Program and arguments of a command, the shell applied.
    pub(crate) fn with_shell(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(text) => self.shell_words(text),
        }
    }

    /// The shell in force with `text` as its script.
    pub(crate) fn shell_words(&self, text: &str) -> Vec<String> {
        let shell = &self.state.config.config.shell;
        let mut words =
            if shell.is_empty() { vec!["/bin/sh".to_string(), "-c".to_string()] } else { shell.clone() };
        self.shared.budget.spend(words.iter().map(|word| word.len()).sum());
        words.push(text.to_string());
        words
    }

    /// Keys and values of one instruction, all expanded with what the variables were before it.
    fn key_values(&self, pairs: &[KeyValue]) -> Result<Vec<(String, String)>, Diagnostic> {
        let expander = self.expander();
        let value =
            |pair: &KeyValue| pair.value.as_ref().map_or(Ok(String::new()), |value| expander.word(value));
        pairs.iter().map(|pair| Ok((expander.word(&pair.key)?, value(pair)?))).collect()
    }

    fn env(&mut self, variables: &[KeyValue]) -> Result<String, Diagnostic> {
        let mut created_by = String::from("ENV");
        for (name, value) in self.key_values(variables)? {
            created_by.push_str(&format!(" {name}={value}"));
            self.state.environment.set(&name, &value);
            self.state.config.config.set_env(&name, &value);
        }
        Ok(created_by)
    }

    fn label(&mut self, labels: &[KeyValue]) -> Result<String, Diagnostic> {
        let mut created_by = String::from("LABEL");
        for (name, value) in self.key_values(labels)? {
            created_by.push_str(&format!(" {name}={value}"));
            self.state.config.config.labels.insert(name, value);
        }
        Ok(created_by)
    }

    fn healthcheck(&mut self, healthcheck: &Healthcheck) -> String {
        let mut health = mica_oci::Healthcheck::default();
        match healthcheck {
            Healthcheck::None => health.test = vec!["NONE".to_string()],
            Healthcheck::Check {
                interval_ns,
                timeout_ns,
                start_period_ns,
                start_interval_ns,
                retries,
                command,
            } => {
                health.test = match command {
                    Command::Exec(words) => {
                        std::iter::once("CMD".to_string()).chain(words.iter().cloned()).collect()
                    }
                    Command::Shell(text) => vec!["CMD-SHELL".to_string(), text.clone()],
                };
                health.interval_ns = interval_ns.unwrap_or_default();
                health.timeout_ns = timeout_ns.unwrap_or_default();
                health.start_period_ns = start_period_ns.unwrap_or_default();
                health.start_interval_ns = start_interval_ns.unwrap_or_default();
                health.retries = i64::from(retries.unwrap_or_default());
            }
        }
        let created_by = format!(
            "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
            plain_list(&health.test),
            duration(health.interval_ns),
            duration(health.timeout_ns),
            duration(health.start_period_ns),
            duration(health.start_interval_ns),
            health.retries
        );
        self.state.config.config.healthcheck = Some(health);
        created_by
    }

    fn expose(&mut self, words: &[Word]) -> Result<String, Diagnostic> {
        let mut ports = Vec::new();
        // BuildKit sorts the words as they are written, and the history shows it.
        let mut sorted: Vec<&Word> = words.iter().collect();
        sorted.sort_by(|left, right| left.value.cmp(&right.value));
        for word in sorted {
            for text in self.expander().words(word)? {
                ports.extend(parse_ports(&text).map_err(|error| {
                    Diagnostic::error(word.span, error.to_string())
                        .hint("write `PORT`, `PORT-PORT` or `PORT/PROTOCOL`")
                })?);
                if ports.len() > PORTS_MAX {
                    return Err(Diagnostic::error(word.span, format!("more than {PORTS_MAX} ports")));
                }
            }
        }
        for port in &ports {
            self.state.config.config.exposed_ports.insert(port.clone(), Empty {});
        }
        Ok(format!("EXPOSE {}", plain_list(&ports)))
    }

    fn volume(&mut self, words: &[Word]) -> Result<String, Diagnostic> {
        let mut volumes = Vec::with_capacity(words.len());
        for word in words {
            let volume = self.expander().word(word)?;
            if volume.is_empty() {
                return Err(Diagnostic::error(
                    word.span,
                    format!("`{}` is empty, a volume needs a path", word.value),
                ));
            }
            volumes.push(volume);
        }
        for volume in &volumes {
            self.state.config.config.volumes.insert(volume.clone(), Empty {});
        }
        Ok(format!("VOLUME {}", plain_list(&volumes)))
    }

    /// WORKDIR: in the config, and a step that makes the directory.
    pub(crate) fn workdir(&mut self, word: &Word, instruction: &Instruction) -> Result<(), Diagnostic> {
        let directory = path::join(&self.directory(), &self.expander().word(word)?);
        if directory.len() > PATH_BYTES_MAX {
            return Err(Diagnostic::error(
                word.span,
                format!("the directory's path is longer than {PATH_BYTES_MAX} bytes"),
            ));
        }
        self.state.config.config.working_dir.clone_from(&directory);
        let created_by = format!("WORKDIR {directory}");
        if directory == "/" {
            self.add_history(created_by, None);
            return Ok(());
        }
        let text = self.expander().display(&instruction.text);
        let user = self.state.config.config.user.clone();
        self.add_step(
            Operation::Workdir(WorkdirStep { path: directory, user }),
            &text,
            instruction,
            created_by,
        );
        Ok(())
    }

    /// The directory that relative paths begin at.
    pub(crate) fn directory(&self) -> String {
        path::join("/", &self.state.config.config.working_dir)
    }
}
