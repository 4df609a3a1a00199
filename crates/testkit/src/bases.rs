//! Root filesystems that tests and the demo import: made once, shared under a lock.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::needs::find_tool;
use crate::tar::{Entry, Writer};

/// What mmdebstrap may take over a slow mirror.
const DEBOOTSTRAP_DEADLINE: Duration = Duration::from_secs(900);

/// The directory of the bases: `MICA_TEST_BASES`, or `bases` in the build directory that this program stands in.
pub fn bases_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("MICA_TEST_BASES") {
        return dir.into();
    }
    build_dir().join("bases")
}

/// The build directory (`target`) that this program was built into.
pub fn build_dir() -> PathBuf {
    let program = std::env::current_exe().expect("the path of this program");
    let tagged = program.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    tagged.or(program.parent()).expect("a directory of this program").to_owned()
}

/// A root filesystem of busybox alone: shell, applets, passwd, group, tmp. An error is a reason to skip.
pub fn busybox() -> Result<PathBuf, String> {
    let program = busybox_program()?;
    make_once(&bases_dir(), "busybox.tar", |file| write_busybox(file, &program))
}

/// The same of 64-bit ARM, whose program Debian's mirror has.
pub fn busybox_arm64() -> Result<PathBuf, String> {
    make_once(&bases_dir(), "busybox-arm64.tar", |file| {
        let place = file.with_extension("download");
        let program = download_program(&place, "arm64", "busybox-static", "bin/busybox");
        let _ = fs::remove_dir_all(&place);
        write_busybox(file, &program?)
    })
}

/// A program out of a Debian package of another architecture. apt keeps its lists in `place` and nothing on this machine
/// changes.
fn download_program(
    place: &Path,
    architecture: &str,
    package: &str,
    program: &str,
) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| format!("{}: {error}", place.display());
    check_mirror()?;
    for dir in ["state/lists/partial", "cache/archives/partial", "files"] {
        fs::create_dir_all(place.join(dir)).map_err(told)?;
    }
    let mirror = mirror().unwrap_or_default();
    fs::write(place.join("sources.list"), format!("deb {mirror} {} main\n", codename())).map_err(told)?;
    let path = |name: &str| place.join(name).display().to_string();
    let settings = [
        format!("APT::Architecture={architecture}"),
        format!("APT::Architectures={architecture}"),
        format!("Dir::State={}", path("state")),
        "Dir::State::status=/dev/null".to_owned(),
        format!("Dir::Cache={}", path("cache")),
        format!("Dir::Etc::sourcelist={}", path("sources.list")),
        "Dir::Etc::sourceparts=-".to_owned(),
        "Acquire::Languages=none".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
    ];
    let run = |mut command: Command| {
        command.current_dir(place);
        let outcome = crate::run_bounded(command, DEBOOTSTRAP_DEADLINE);
        match outcome.code {
            0 => Ok(()),
            _ => Err(format!("{package} of {architecture}: {}", last_line(&outcome.stderr))),
        }
    };
    for action in [&["update"][..], &["download", package]] {
        let mut command = Command::new("apt-get");
        command.arg("-q").args(settings.iter().map(|setting| format!("-o{setting}"))).args(action);
        run(command)?;
    }
    let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let found = fs::read_dir(place).map_err(told)?.flatten().map(|entry| entry.path()).find(is_package);
    let mut unpack = Command::new("dpkg-deb");
    unpack
        .arg("-x")
        .arg(found.ok_or_else(|| format!("apt-get brought no {package}"))?)
        .arg(place.join("files"));
    run(unpack)?;
    fs::read(place.join("files").join(program)).map_err(told)
}

fn write_busybox(file: &Path, program: &[u8]) -> Result<(), String> {
    let mut tar = Writer::default();
    for dir in ["bin", "dev", "etc", "proc", "sys", "usr", "usr/bin", "var"] {
        tar.add(Entry::dir(dir), b"");
    }
    tar.add(Entry { mode: 0o700, ..Entry::dir("root") }, b"");
    tar.add(Entry { mode: 0o1777, ..Entry::dir("tmp") }, b"");
    tar.add(Entry { mode: 0o755, ..Entry::file("bin/busybox") }, program);
    for applet in applets()? {
        tar.add(Entry::symlink(&format!("bin/{applet}"), "busybox"), b"");
    }
    tar.add(Entry::symlink("usr/bin/env", "../../bin/busybox"), b"");
    tar.add(
        Entry::file("etc/passwd"),
        b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    );
    tar.add(Entry::file("etc/group"), b"root:x:0:\ndaemon:x:1:\nstaff:x:50:\nnogroup:x:65534:\n");
    fs::write(file, tar.finish()).map_err(|error| error.to_string())
}

/// The base of the corpus's build cases: its tar with busybox added.
pub fn corpus_base(corpus: &Path) -> Result<PathBuf, String> {
    let program = busybox_program()?;
    let packed = corpus.join("build-cases/base-without-busybox.tar.gz");
    make_once(&bases_dir(), "corpus-base.tar", |file| {
        let output =
            Command::new("gzip").arg("-dc").arg(&packed).output().map_err(|error| error.to_string())?;
        let mut tar = Writer::from_archive(output.stdout);
        tar.add(Entry { mode: 0o755, mtime: 1_700_000_000, ..Entry::file("./bin/busybox") }, &program);
        fs::write(file, tar.finish()).map_err(|error| error.to_string())
    })
}

fn busybox_program() -> Result<Vec<u8>, String> {
    let path = find_tool("busybox").ok_or("`busybox` (Debian's busybox-static) is not installed")?;
    fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
}

fn applets() -> Result<Vec<String>, String> {
    let output = Command::new("busybox").arg("--list").output().map_err(|error| error.to_string())?;
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(names.lines().filter(|name| *name != "busybox").map(str::to_owned).collect())
}

/// A minimal Debian of this machine's release, whose apt reaches what this machine's apt reaches.
pub fn debian() -> Result<PathBuf, String> {
    debian_in(&bases_dir())
}

/// What people install with and build with. Debian's npm has 300 packages, the rest 150.
const TOOLS: &str = "--include=make,gcc,libc6-dev,python3,python3-pip,git,nodejs,npm";

/// A Debian with make, gcc, Python with pip, git and Node.js with npm, for builds that need no network. Without manuals.
pub fn debian_with_tools() -> Result<PathBuf, String> {
    let mut options = vec![TOOLS.to_owned()];
    for place in ["doc", "man", "info", "locale"] {
        options.push(format!("--dpkgopt=path-exclude=/usr/share/{place}/*"));
    }
    make_debian(&bases_dir(), "debian-tools", &options)
}

/// The same as [`debian`], kept in a directory of the caller's.
pub fn debian_in(dir: &Path) -> Result<PathBuf, String> {
    make_debian(dir, "debian", &[])
}

/// A Debian that mmdebstrap makes with these options, under a name of their own.
fn make_debian(dir: &Path, name: &str, options: &[String]) -> Result<PathBuf, String> {
    let codename = codename();
    make_once(dir, &format!("{name}-{codename}-{}.tar", std::env::consts::ARCH), |file| {
        if find_tool("mmdebstrap").is_none() {
            return Err("`mmdebstrap` is not installed (apt-get install mmdebstrap)".into());
        }
        let mut command = Command::new("mmdebstrap");
        command.args(["--quiet", "--variant=minbase", "--format=tar"]).args(options);
        for option in apt_options() {
            command.arg(format!("--aptopt={option}"));
        }
        // Behind a proxy that opens TLS, pip would fail without what this machine trusts beside Debian's own list.
        let certificates = added_certificates();
        let place = file.with_extension("certificates");
        if !certificates.is_empty() {
            fs::create_dir_all(&place).map_err(|error| error.to_string())?;
            command.arg("--customize-hook=mkdir -p \"$1/usr/local/share/ca-certificates\"");
            for (position, certificate) in certificates.iter().enumerate() {
                let path = place.join(format!("machine-{position}.crt"));
                fs::write(&path, certificate).map_err(|error| error.to_string())?;
                let path = path.display();
                command.arg(format!("--customize-hook=copy-in {path} /usr/local/share/ca-certificates"));
            }
        }
        command.arg(&codename).arg(file).args(mirror());
        let outcome = crate::run_bounded(command, DEBOOTSTRAP_DEADLINE);
        let _ = fs::remove_dir_all(&place);
        if outcome.code == 0 {
            Ok(())
        } else {
            Err(format!("mmdebstrap failed: {}", last_line(&outcome.stderr)))
        }
    })
}

/// Certificates in PEM that this machine trusts and Debian's package does not have.
fn added_certificates() -> Vec<String> {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let mut own = String::new();
    let mut directories = vec![PathBuf::from("/usr/share/ca-certificates")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                _ => own.push_str(&read(&entry.path())),
            }
        }
    }
    let known = pem_blocks(&own);
    let mut added = pem_blocks(&read(Path::new("/etc/ssl/certs/ca-certificates.crt")));
    added.retain(|certificate| !known.contains(certificate));
    added
}

/// The certificates of a text, each from its first to its last line.
fn pem_blocks(text: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let blocks = text.split_inclusive(END).filter_map(|piece| {
        let start = piece.find("-----BEGIN CERTIFICATE-----")?;
        piece.ends_with(END).then(|| format!("{}\n", piece[start..].replace('\r', "")))
    });
    blocks.collect()
}

fn last_line(text: &str) -> &str {
    text.trim().lines().next_back().unwrap_or("no output")
}

/// The release of this machine if it is a Debian, else one that the mirrors keep for long.
fn codename() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let fields: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key, value.trim_matches('"')))
        .collect();
    match (fields.get("ID"), fields.get("VERSION_CODENAME")) {
        (Some(&"debian"), Some(codename)) => (*codename).to_owned(),
        _ => "bookworm".into(),
    }
}

/// The first mirror that this machine's own apt uses, if it is a Debian; mmdebstrap knows one of its own otherwise.
fn mirror() -> Option<String> {
    let mut files: Vec<PathBuf> = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension().is_some_and(|extension| extension == "sources" || extension == "list")
        })
        .collect();
    // The distribution's own file is before those of others.
    files.sort_by_key(|path| (!path.ends_with("debian.sources"), path.clone()));
    files.insert(0, "/etc/apt/sources.list".into());
    let is_debian =
        fs::read_to_string("/etc/os-release").is_ok_and(|text| text.lines().any(|line| line == "ID=debian"));
    files.iter().filter(|_| is_debian).find_map(|file| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().find_map(|line| {
            let words = line.strip_prefix("URIs:").or_else(|| line.strip_prefix("deb "))?;
            words.split_whitespace().find(|word| word.contains("://")).map(str::to_owned)
        })
    })
}

/// This machine's one-line `Acquire::` settings (proxies, timeouts, checks): a container behind the same mirror needs them.
fn apt_options() -> Vec<String> {
    let mut files: Vec<PathBuf> = fs::read_dir("/etc/apt/apt.conf.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files.insert(0, "/etc/apt/apt.conf".into());
    let text: String =
        files.iter().filter_map(|file| fs::read_to_string(file).ok()).map(|text| text + "\n").collect();
    text.lines()
        .map(str::trim)
        .filter(|line| line.starts_with("Acquire::") && line.ends_with(';') && !line.contains('{'))
        .map(|line| line.trim_end_matches(';').to_owned())
        .collect()
}

/// The file `name` in `dir`, made by `make` under a lock if it is not there.
fn make_once(
    dir: &Path,
    name: &str,
    make: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let file = dir.join(name);
    if file.is_file() {
        return Ok(file);
    }
    let told = |error: std::io::Error| format!("{}: {error}", dir.display());
    fs::create_dir_all(dir).map_err(told)?;
    let lock = File::create(dir.join("lock")).map_err(told)?;
    lock.lock().map_err(told)?;
    if !file.is_file() {
        let unfinished = dir.join(format!("unfinished-{name}"));
        make(&unfinished)?;
        fs::rename(&unfinished, &file).map_err(told)?;
    }
    Ok(file)
}

/// Whether the base's mirror answers, for tests whose builds install packages. An error is a reason to skip.
pub fn check_mirror() -> Result<(), String> {
    use std::net::ToSocketAddrs as _;
    let Some(mirror) = mirror() else {
        return Err("this machine is not a Debian whose mirror could be asked".into());
    };
    let host =
        mirror.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default().to_owned();
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().unwrap_or(80)),
        None => (host.as_str(), if mirror.starts_with("https") { 443 } else { 80 }),
    };
    if ["http_proxy", "https_proxy"].iter().any(|name| std::env::var_os(name).is_some()) {
        return Ok(());
    }
    let unreachable = |error: std::io::Error| format!("the package mirror cannot be reached: {error}");
    let address =
        (name, port).to_socket_addrs().map_err(unreachable)?.next().ok_or("the mirror has no address")?;
    let mut stream =
        std::net::TcpStream::connect_timeout(&address, Duration::from_secs(10)).map_err(unreachable)?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).map_err(unreachable)?;
    let _ = stream.read(&mut [0; 0]);
    Ok(())
}
