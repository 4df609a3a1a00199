//! Writing to stdout, and asking on the terminal.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::error::CliError;

/// Writes data. A reader that went away (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Writes a file that is there whole or not at all, as a failure must not leave half of it under the name: without a name
/// first, where the file system can do that, so that a kill leaves nothing; else beside its place. What is no plain file (a
/// pipe, a device) is written as it is, and a link leads to the place.
pub(crate) fn write_whole(
    path: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let failed = |error: io::Error| CliError::new(format!("cannot write `{}`: {error}", path.display()));
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return write(&mut File::options().write(true).open(path).map_err(failed)?);
    }
    let resolved = path.canonicalize();
    let path = resolved.as_deref().unwrap_or(path);
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let part = path.with_file_name(name);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let written = match rustix::fs::open(directory, flags, Mode::from_raw_mode(0o666)) {
        Ok(file) => {
            let mut file = File::from(file);
            let link = format!("/proc/self/fd/{}", file.as_raw_fd());
            write(&mut file).and_then(|()| {
                rustix::fs::linkat(CWD, link, CWD, &part, AtFlags::SYMLINK_FOLLOW)
                    .map_err(|error| failed(error.into()))
            })
        }
        Err(_) => {
            let mut file = File::create_new(&part).map_err(failed)?;
            write(&mut file)
        }
    };
    let written = written.and_then(|()| std::fs::rename(&part, path).map_err(failed));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&part);
    }
    written
}

/// Asks, in docker's words; nothing but `y` is yes.
pub(crate) fn confirm(warning: &str) -> Result<bool, CliError> {
    print(&format!("{warning}\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y"))
}
