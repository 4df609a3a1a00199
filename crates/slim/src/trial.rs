//! One command in a container of its own: what it is, how it ends, what it used.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mica_container::{
    ContainerError, Context, FoundImage, RunOptions, Settings, Supervised, create_container, supervise,
};
use mica_network::NetworkNamespace;
use mica_store::Store;
use mica_trace::{Fault, ServeOptions, TreeUse};

use crate::error::{Failure, SlimError};
use crate::http;
use crate::http_check::HttpCheck;
use crate::lines::Lines;
use crate::stack::{Stack, WithoutDigests};

/// More paths than any image has that is worth slimming; a bound for memory.
const USES_MAX: usize = 4_000_000;
/// How long a server that was asked to end may take.
const STOP_TIME: Duration = Duration::from_secs(10);
/// How often a running server is looked after.
const TICK: Duration = Duration::from_millis(50);
const KILL: i32 = 9;
const COMMAND_BYTES_SHOWN: usize = 200;

/// A command that shows what an image is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// In place of the image's ENTRYPOINT, as `--entrypoint` of `run`.
    pub entrypoint: Option<String>,
    /// In place of the image's CMD, if there are any.
    pub arguments: Vec<String>,
    /// How it ends.
    pub ending: Ending,
}

/// How a command ends when all is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with exit code 0.
    Exit,
    /// It is stopped: after all checks were answered, and not before `time` is over. A command that ends by itself in that
    /// time must do so with exit code 0.
    Stopped {
        /// Asked one after the other.
        checks: Vec<HttpCheck>,
        /// How long it runs at least.
        time: Duration,
    },
}

/// What happens while an image is slimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A command is started.
    Started {
        /// In words.
        command: &'a str,
        /// On the result.
        on_result: bool,
    },
    /// A command wrote a line.
    Output {
        /// The line.
        line: &'a str,
    },
    /// A server answered a check.
    Answered {
        /// Port.
        port: u16,
        /// Path.
        path: &'a str,
        /// HTTP status.
        status: u16,
    },
    /// What the user should know.
    Warning {
        /// One line.
        text: &'a str,
    },
}

/// Splits a command as a shell does, without doing what a shell does.
pub fn parse_words(text: &str) -> Result<Vec<String>, SlimError> {
    let bad = |reason| SlimError::BadWords { text: text.to_owned(), reason };
    let words = shlex::split(text).ok_or_else(|| bad("a quote or a backslash has no end"))?;
    if words.is_empty() { Err(bad("there is none")) } else { Ok(words) }
}

/// Runs trials.
pub(crate) struct Trials<'a> {
    pub store: &'a Store,
    pub rootless: bool,
    /// For each of them, but for what the trial says itself.
    pub options: &'a RunOptions,
    pub timeout: Duration,
    pub events: &'a mut dyn FnMut(Event<'_>),
}

/// What is asked of a server, ports known.
struct Question {
    port: u16,
    path: String,
}

impl Trials<'_> {
    /// Runs it over the served files of the image; answers what it used.
    pub fn traced(
        &mut self,
        trial: &Trial,
        image: &FoundImage,
        name: &str,
        stack: &Arc<Stack>,
    ) -> Result<TreeUse, SlimError> {
        let options = ServeOptions { limit_uses: USES_MAX };
        let files: Arc<dyn mica_trace::Files> = stack.clone();
        let served =
            mica_trace::serve(stack.merged.clone(), files, options).map_err(SlimError::Unavailable)?;
        // Without volumes: what stands there in the image is then seen to be used as everything else.
        let mut image = image.clone();
        image.config.config.volumes.clear();
        let mut command = String::new();
        let ended = self.run(trial, &image, name, Some(served.mount()), &mut command);
        let observed = served.finish(&WithoutDigests);
        // A fault comes first: the command sees no more of it than an input/output error.
        let not_observed = |reason: String| SlimError::NotObserved { command: command.clone(), reason };
        match observed.fault {
            Some(Fault::Damaged { layer, path, reason }) => return Err(stack.damaged(layer, &path, reason)),
            Some(Fault::Died { reason }) => return Err(not_observed(reason)),
            None => ended?,
        }
        observed.uses.ok_or_else(|| not_observed(format!("it used more than {USES_MAX} paths")))
    }

    /// Runs it on the plain files of an image.
    pub fn proof(&mut self, trial: &Trial, image: &FoundImage, name: &str) -> Result<(), SlimError> {
        self.run(trial, image, name, None, &mut String::new())
    }

    fn run(
        &mut self,
        trial: &Trial,
        image: &FoundImage,
        name: &str,
        lower: Option<std::os::fd::BorrowedFd<'_>>,
        command: &mut String,
    ) -> Result<(), SlimError> {
        let on_result = lower.is_none();
        let mut options = RunOptions { remove: true, starts: true, log: false, ..self.options.clone() };
        if let Some(entrypoint) = &trial.entrypoint {
            options.entrypoint = Some(entrypoint.clone());
        }
        options.arguments.clone_from(&trial.arguments);
        let questions = questions(trial, image)?;
        let made = create_container(self.store, image, name, &options)?;
        *command = in_words(&made.settings.argv);
        (self.events)(Event::Started { command, on_result });
        let context = Context {
            store: self.store,
            container: &made.container,
            settings: &made.settings,
            rootless: self.rootless,
        };
        let failed =
            |failure, output| SlimError::Failed { command: command.clone(), on_result, failure, output };
        let mut running = match supervise(context, lower) {
            Ok(running) => running,
            Err(ContainerError::Runtime(error)) => {
                return Err(failed(Failure::NotStarted(error.to_string()), Vec::new()));
            }
            Err(error) => return Err(error.into()),
        };
        for text in running.warnings() {
            (self.events)(Event::Warning { text });
        }
        let mut lines = Lines::default();
        let ended = match &trial.ending {
            Ending::Exit => self.until_exit(&mut running, &mut lines),
            Ending::Stopped { time, .. } => {
                self.until_stopped(&mut running, &made.settings, &questions, *time, &mut lines)
            }
        };
        // Whatever became of it, nobody looks at its files any more after this.
        drop(running);
        let output = lines.finish(&mut |line| (self.events)(Event::Output { line }));
        ended?.map_err(|failure| failed(failure, output))
    }

    fn until_exit(
        &mut self,
        running: &mut Supervised<'_>,
        lines: &mut Lines,
    ) -> Result<Result<(), Failure>, SlimError> {
        Ok(match self.wait(running, self.timeout, lines)? {
            Some(0) => Ok(()),
            Some(code) => Err(Failure::Code(code)),
            None => Err(Failure::TimedOut(self.timeout)),
        })
    }

    fn until_stopped(
        &mut self,
        running: &mut Supervised<'_>,
        settings: &Settings,
        questions: &[Question],
        time: Duration,
        lines: &mut Lines,
    ) -> Result<Result<(), Failure>, SlimError> {
        let started = Instant::now();
        let deadline = started + self.timeout;
        for question in questions {
            let ended_early =
                |code| Failure::EndedEarly { code, port: question.port, path: question.path.clone() };
            // It has no namespace any more once it has ended, and that may have been at once.
            let network = match (running.network(), running.ipv4()) {
                (Ok(network), ipv4) => (network, ipv4),
                (Err(error), _) => match self.wait(running, STOP_TIME, lines)? {
                    Some(code) => return Ok(Err(ended_early(code))),
                    None => return Err(error.into()),
                },
            };
            match self.ask(running, network, question, deadline, lines)? {
                Asked::Answered(status) => {
                    (self.events)(Event::Answered { port: question.port, path: &question.path, status });
                }
                Asked::Ended(code) => return Ok(Err(ended_early(code))),
                Asked::Unanswered(last) => {
                    let (port, path, time) = (question.port, question.path.clone(), self.timeout);
                    return Ok(Err(Failure::NoAnswer { port, path, time, last }));
                }
            }
        }
        if let Some(code) = self.wait(running, time.saturating_sub(started.elapsed()), lines)? {
            return Ok(if code == 0 { Ok(()) } else { Err(Failure::Code(code)) });
        }
        // A shell as the first process mostly cannot be asked; it is not waited for then.
        let patience = if running.heeds(settings.stop_signal) { STOP_TIME } else { Duration::ZERO };
        running.signal(settings.stop_signal)?;
        if self.wait(running, patience, lines)?.is_none() {
            running.signal(KILL)?;
            self.wait(running, STOP_TIME, lines)?;
        }
        Ok(Ok(()))
    }

    /// Asks on a thread of its own, so that the server's output is read meanwhile.
    fn ask(
        &mut self,
        running: &mut Supervised<'_>,
        (network, ipv4): (NetworkNamespace, Option<Ipv4Addr>),
        question: &Question,
        deadline: Instant,
        lines: &mut Lines,
    ) -> Result<Asked, SlimError> {
        let stop = AtomicBool::new(false);
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            let ask = || {
                let answer =
                    network.run(|| http::ask_until(ipv4, question.port, &question.path, deadline, &stop));
                let _ = tell.send(answer);
            };
            let thread = std::thread::Builder::new().name("check".to_owned()).spawn_scoped(scope, ask);
            thread.map_err(|error| mica_sys::Error::new("clone", "check", error))?;
            let asked = loop {
                match self.wait(running, TICK, lines) {
                    Ok(None) => {}
                    // It may have answered with its last breath; it is no server all the same.
                    Ok(Some(code)) => break Ok(Asked::Ended(code)),
                    Err(error) => break Err(error),
                }
                match told.try_recv() {
                    Ok(Ok(Ok(status))) => break Ok(Asked::Answered(status)),
                    Ok(Ok(Err(last))) => break Ok(Asked::Unanswered(last)),
                    Ok(Err(error)) => break Err(ContainerError::from(error).into()),
                    Err(mpsc::TryRecvError::Empty) => {}
                    Err(mpsc::TryRecvError::Disconnected) => {
                        break Ok(Asked::Unanswered("the check ended".to_owned()));
                    }
                }
            };
            stop.store(true, Ordering::Relaxed);
            asked
        })
    }

    fn wait(
        &mut self,
        running: &mut Supervised<'_>,
        time: Duration,
        lines: &mut Lines,
    ) -> Result<Option<i32>, SlimError> {
        let events = &mut *self.events;
        let mut take = |bytes: &[u8]| lines.take(bytes, &mut |line| events(Event::Output { line }));
        Ok(running.wait(time, &mut take)?)
    }
}

enum Asked {
    Answered(u16),
    Ended(i32),
    Unanswered(String),
}

/// The checks of a trial with their ports.
fn questions(trial: &Trial, image: &FoundImage) -> Result<Vec<Question>, SlimError> {
    let Ending::Stopped { checks, .. } = &trial.ending else { return Ok(Vec::new()) };
    let exposed: Vec<&String> =
        image.config.config.exposed_ports.keys().filter(|port| !port.ends_with("/udp")).collect();
    let only = || match exposed.as_slice() {
        [port] => port.trim_end_matches("/tcp").parse().ok(),
        _ => None,
    };
    let question = |check: &HttpCheck| match check.port.or_else(only) {
        Some(port) => Ok(Question { port, path: check.path.clone() }),
        None => Err(SlimError::PortUnknown { exposed: exposed.iter().copied().cloned().collect() }),
    };
    checks.iter().map(question).collect()
}

/// A command as people would type it, shortened.
fn in_words(argv: &[String]) -> String {
    let joined = shlex::try_join(argv.iter().map(String::as_str)).unwrap_or_else(|_| argv.join(" "));
    let line = joined.replace(['\n', '\r'], " ");
    match line.char_indices().nth(COMMAND_BYTES_SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_and_shown() {
        let check = |text: &str, expect: Result<&[&str], &str>| match (parse_words(text), expect) {
            (Ok(words), Ok(expect)) => assert_eq!(words, expect),
            (Err(error), Err(expect)) => assert!(error.to_string().contains(expect), "{error}"),
            (found, _) => panic!("{text}: {found:?}"),
        };
        check("python -m pytest", Ok(&["python", "-m", "pytest"]));
        check("sh -c 'a && b' \"c d\" e\\ f", Ok(&["sh", "-c", "a && b", "c d", "e f"]));
        check("'a", Err("no end"));
        check("  ", Err("there is none"));
        let words =
            |words: &[&str]| in_words(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(words(&["sh", "-c", "a b"]), "sh -c 'a b'");
        assert_eq!(words(&["a\nb"]), "'a b'");
        assert_eq!(words(&[&"é".repeat(300)]).chars().count(), COMMAND_BYTES_SHOWN + 1);
    }
}
