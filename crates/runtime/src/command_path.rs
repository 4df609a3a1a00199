//! Where a command is, in the container's root and as the container's user.

use std::path::PathBuf;

use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

use crate::error::Failure;
use crate::spec::DEFAULT_PATH;

/// The file to execute for `command`, looked for in the `PATH` of `env` unless it holds a slash.
pub(crate) fn find_command(command: &str, env: &[String]) -> Result<PathBuf, Failure> {
    if command.contains('/') {
        return match check_executable(command) {
            Ok(()) => Ok(PathBuf::from(command)),
            Err(Errno::ISDIR) => {
                Err(Failure::CommandNotExecutable { command: command.to_owned(), directory: true })
            }
            Err(Errno::NOENT | Errno::NOTDIR) => {
                Err(Failure::CommandNotFound { command: command.to_owned(), searched: false })
            }
            Err(_) => Err(Failure::CommandNotExecutable { command: command.to_owned(), directory: false }),
        };
    }
    let path = env.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    path.split(':')
        .map(|directory| if directory.is_empty() { "." } else { directory })
        .map(|directory| format!("{directory}/{command}"))
        .find(|candidate| check_executable(candidate).is_ok())
        .map(PathBuf::from)
        .ok_or_else(|| Failure::CommandNotFound { command: command.to_owned(), searched: true })
}

fn check_executable(path: &str) -> rustix::io::Result<()> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    // Root may "execute" a file without any x bit according to access(2) on no filesystem but some; execve refuses it.
    if stat.st_mode & 0o111 == 0 {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::empty())
}
