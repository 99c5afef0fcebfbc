//! Clears away what a broker that was killed has left behind: directories of jobs, and processes that outlived the tasks
//! which started them.
//!
//! A task dies with its broker, but what it has started itself does not. Such a process still has the job's directory in
//! its environment; that is how it is told, because a number of a process may long belong to another.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How the directories of jobs begin.
pub(crate) const PREFIX: &str = "jobtmp-";

/// Kills and removes what is left in `tmp`, which is this broker's alone and in use by no job yet.
pub(crate) fn sweep(tmp: &Path) -> io::Result<()> {
    let left = directories(tmp)?;
    if left.is_empty() {
        return Ok(());
    }
    for pid in processes()? {
        if belongs_to(pid, &left) {
            tracing::warn!(%pid, "a process of a job that this broker has lost is killed");
            // One that has ended meanwhile is no error.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
    left.iter().try_for_each(fs::remove_dir_all)
}

fn directories(tmp: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(tmp) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut left = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()) && entry.file_type()?.is_dir() {
            left.push(entry.path());
        }
    }
    Ok(left)
}

fn processes() -> io::Result<Vec<Pid>> {
    let pids = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(pids.map(Pid::from_raw).filter(|pid| *pid != Pid::this()).collect())
}

/// Whether a process has one of these as its job's directory. Those of other users cannot be read, and are not ours.
fn belongs_to(pid: Pid, left: &[PathBuf]) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    let dir =
        environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(b"FLUX_JOB_TMPDIR="));
    // A job of an instance within the job has its directory inside.
    dir.map(|dir| Path::new(OsStr::from_bytes(dir)))
        .is_some_and(|dir| left.iter().any(|left| dir.starts_with(left)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn processes_and_directories_of_lost_jobs_go_and_others_stay() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let (lost, kept) = (dir.path().join("jobtmp-0-f1"), dir.path().join("other"));
        fs::create_dir_all(lost.join("sub")).expect("a directory");
        fs::create_dir(&kept).expect("a directory");
        let sleep = |tmpdir: &Path| {
            let command = &mut Command::new("sleep");
            let process = command.arg("100").env("FLUX_JOB_TMPDIR", tmpdir).spawn().expect("a process");
            // The exec lets the parent go on before the kernel shows the new environment.
            let environment = format!("/proc/{}/environ", process.id());
            while fs::read(&environment).expect("a process of ours").is_empty() {
                std::thread::yield_now();
            }
            process
        };
        let (mut doomed, mut innocent) = (sleep(&lost.join("jobtmp-0-f2")), sleep(&kept));
        sweep(dir.path()).expect("swept");
        assert_eq!(doomed.wait().expect("its end").to_string(), "signal: 9 (SIGKILL)");
        assert!(innocent.try_wait().expect("its state").is_none());
        assert!(!lost.exists() && kept.exists());
        innocent.kill().expect("killed");
        innocent.wait().expect("its end");
    }

    #[test]
    fn nothing_is_left_where_nothing_was() {
        sweep(Path::new("/nonexistent/tmp")).expect("no error");
    }
}
