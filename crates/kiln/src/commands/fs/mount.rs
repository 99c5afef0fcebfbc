//! `kiln fs mount` and `kiln fs umount`.
//!
//! A mount is a process of its own: the same command with `--foreground`, in a session of its own, with its log in the data directory. It tells the
//! command that started it by a line on standard output when programs may use the mount.

mod checks;
mod client;
mod record;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use nix::mount::{MntFlags, umount2};

use super::super::{Usage, exit, say};
use crate::cli::Mount;
use crate::paths::DataDir;
use record::Record;

/// Set for a process that has been started by [`detach`].
const DETACHED: &str = "KILN_MOUNT_DETACHED";
/// The line that says that programs may use the mount.
const MOUNTED: &str = "mounted";
/// How long the process of a mount may take to write back what it holds, once nobody uses the mount.
const WRITTEN_BACK_WITHIN: Duration = Duration::from_mins(2);
/// Helper by which a plain user unmounts.
const FUSERMOUNT: &str = "fusermount3";

/// What `-o` said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Options {
    read_only: bool,
    allow_other: bool,
    nonempty: bool,
}

impl Options {
    fn parse(given: &[String]) -> anyhow::Result<Options> {
        let mut options = Options::default();
        for word in given.iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty()) {
            match word {
                "ro" => options.read_only = true,
                "rw" => options.read_only = false,
                "allow_other" => options.allow_other = true,
                "nonempty" => options.nonempty = true,
                other => {
                    let known = "ro, rw, allow_other, nonempty";
                    return Err(
                        Usage(format!("-o {other}: there is no such option; there are {known}")).into()
                    );
                }
            }
        }
        Ok(options)
    }
}

/// Mounts, and returns when that is done; with `--foreground` when it is unmounted.
pub(in crate::commands) fn mount(data: &DataDir, arguments: &Mount) -> anyhow::Result<ExitCode> {
    let options = Options::parse(&arguments.options)?;
    let dir = checks::directory(&arguments.dir, options.nonempty)?;
    checks::fuse(options.allow_other)?;
    if arguments.foreground {
        client::run(data, &arguments.name, &dir, options, std::env::var_os(DETACHED).is_some())
    } else {
        detach(data, arguments, &dir)
    }
}

/// Starts the mount in the background and waits until it is there.
fn detach(data: &DataDir, arguments: &Mount, dir: &Path) -> anyhow::Result<ExitCode> {
    let path = log_file(data, dir);
    let mut log = File::options().create(true).append(true).read(true).open(&path);
    if log.is_err() && !crate::supervisor::is_running(data) {
        // Where there is no data directory, the process itself says so best.
        log = tempfile::tempfile();
    }
    let mut log = log.with_context(|| format!("failed to open {}", path.display()))?;
    let before = log.seek(SeekFrom::End(0))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--data").arg(data.root()).args(["fs", "mount", "--foreground"]);
    for option in &arguments.options {
        command.args(["-o", option]);
    }
    command.arg(&arguments.name).arg(dir).env(DETACHED, "1").current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.try_clone()?);
    let mut child = command.spawn().context("failed to start the process of the mount")?;
    if !is_mounted(&mut child) {
        let status = child.wait()?;
        return Ok(tell_failure(&mut log, before, status.code()));
    }
    say(&format!("{} is mounted on {}", arguments.name, dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Waits for the word of the process; `false` when it ends without.
fn is_mounted(child: &mut Child) -> bool {
    let Some(stdout) = child.stdout.take() else { return false };
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).is_ok() && line.trim_end() == MOUNTED
}

/// Repeats what the process said before it ended.
fn tell_failure(log: &mut File, from: u64, code: Option<i32>) -> ExitCode {
    let mut said = Vec::new();
    let read = log.seek(SeekFrom::Start(from)).and_then(|_| log.read_to_end(&mut said));
    if read.is_ok() && !said.is_empty() {
        eprint!("{}", String::from_utf8_lossy(&said));
    } else {
        eprintln!("kiln: the process of the mount ended without a word");
    }
    ExitCode::from(
        code.and_then(|code| u8::try_from(code).ok()).filter(|code| *code > 0).unwrap_or(exit::FAILED),
    )
}

/// The log of whoever is mounted on `dir`.
fn log_file(data: &DataDir, dir: &Path) -> PathBuf {
    /// Names of files end at 255 bytes.
    const NAME_CHARS_MAX: usize = 100;
    let dir = dir.display().to_string();
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c } else { '-' };
    let name: String = dir.trim_matches('/').chars().map(plain).take(NAME_CHARS_MAX).collect();
    data.logs().join(format!("mount-{name}.log"))
}

/// Unmounts, and waits until everything is written back.
pub(in crate::commands) fn umount(data: &DataDir, dir: &Path, lazy: bool) -> anyhow::Result<ExitCode> {
    let dir = checks::mounted(dir)?;
    let record = Record::find(data, &dir);
    take_away(&dir, lazy)?;
    if let Some(record) = record.filter(|_| !lazy) {
        anyhow::ensure!(
            record.wait(WRITTEN_BACK_WITHIN),
            "{} is unmounted, and process {} still writes back what it holds; see {}",
            dir.display(),
            record.pid,
            record.log.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn take_away(dir: &Path, lazy: bool) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return take_away_as_user(dir, lazy);
    }
    let flags = if lazy { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    match umount2(dir, flags) {
        Ok(()) => Ok(()),
        Err(nix::errno::Errno::EBUSY) => anyhow::bail!(
            "programs still use {0}: `fuser -vm {0}` names them; --lazy takes it out of sight now",
            dir.display()
        ),
        Err(errno) => Err(errno).with_context(|| format!("failed to unmount {}", dir.display())),
    }
}

fn take_away_as_user(dir: &Path, lazy: bool) -> anyhow::Result<()> {
    let mut command = Command::new(FUSERMOUNT);
    command.arg("-u").args(lazy.then_some("-z")).arg("--").arg(dir);
    let status = command.status().with_context(|| format!("failed to run {FUSERMOUNT}; install fuse3"))?;
    anyhow::ensure!(
        status.success(),
        "{FUSERMOUNT} did not unmount {0}; when programs use it, `fuser -vm {0}` names them",
        dir.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_told_apart() {
        let parse = |text: &str| Options::parse(&[text.to_owned()]);
        assert_eq!(parse("").unwrap(), Options::default());
        let expected = Options { read_only: true, allow_other: true, nonempty: false };
        assert_eq!(parse("ro,allow_other").unwrap(), expected);
        assert!(parse("ro,sync").unwrap_err().to_string().contains("-o sync"));
    }

    #[test]
    fn logs_are_named_after_the_directory() {
        let data = DataDir::new(Path::new("/d")).unwrap();
        assert_eq!(log_file(&data, Path::new("/mnt/my fs")), Path::new("/d/log/mount-mnt-my-fs.log"));
        assert!(log_file(&data, Path::new(&"/x".repeat(500))).as_os_str().len() < 255);
    }
}
