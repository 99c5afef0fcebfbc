//! The demo's filesystem: each job keeps what it prints on it, and another mount reads everything back.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use tokio::process::{Child, Command};

use crate::api::client::{escape, get};
use crate::api::model::fs::{Filesystem, NewFilesystem};
use crate::api::model::{Records, Topic};
use crate::commands::fs;
use crate::fs::changelog::topic;
use crate::lfs::mounts;
use crate::paths::DataDir;

/// What it is called.
pub(super) const NAME: &str = "demo";
/// What the jobs run their commands with, beside the settings: it writes to [`RESULTS`].
pub(super) const SCRIPT: (&str, &str) = ("keep-result", include_str!("../../demo/keep-result"));
/// Where it is mounted, in the data directory: for the jobs, and by whom the results are read back.
pub(super) const MOUNTS: [&str; 2] = ["mnt", "mnt2"];
/// Where on the filesystem the jobs write.
const RESULTS: &str = "results";
/// The last line of a result that is whole, of a command that went well.
const WHOLE: &str = "exit 0";
/// A mount is to be there within this time, and gone.
const MOUNTED_WITHIN: Duration = Duration::from_secs(30);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What became of the results on the filesystem.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Kept {
    /// Results that are there.
    pub written: u64,
    /// Those of them that another mount has read, whole.
    pub read: u64,
    /// Why there are none: this machine cannot mount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

impl Kept {
    /// Whether every completed task has left its result, as far as it could.
    pub(super) fn is_complete(&self, completed: u64) -> bool {
        self.skipped.is_some() || (self.written >= completed && self.read == self.written)
    }

    /// For a person.
    pub(super) fn shown(&self) -> String {
        match &self.skipped {
            Some(why) => format!("skipped: {why}"),
            None => format!("{} written, {} read back from another mount", self.written, self.read),
        }
    }
}

/// The mounts that there are, each with its process.
#[derive(Default)]
pub(super) struct Mounts(Vec<Mount>);

struct Mount {
    dir: PathBuf,
    process: Child,
}

/// Makes the filesystem and mounts it for the jobs. Says why that is not possible where it is not.
pub(super) async fn prepare(data: &DataDir, mounts: &mut Mounts) -> anyhow::Result<Result<String, String>> {
    if let Err(error) = File::options().read(true).write(true).open("/dev/fuse") {
        return Ok(Err(format!("/dev/fuse cannot be opened: {}", crate::lfs::plain(&error))));
    }
    let new = NewFilesystem { name: NAME.to_owned(), mdt: None, osts: Vec::new() };
    let made = fs::make(data, &new).await?;
    anyhow::ensure!(made.state == Filesystem::OK, "the filesystem's targets are not served: {made:?}");
    let dir = data.root().join(MOUNTS[0]);
    if let Err(why) = mounts.mount(data, &dir).await? {
        return Ok(Err(why));
    }
    tokio::fs::create_dir(dir.join(RESULTS)).await.context("failed to make a directory on the filesystem")?;
    let osts = made.targets.len() - 1;
    Ok(Ok(format!("filesystem {NAME}: 1 MDT and {osts} OSTs, mounted on {}", dir.display())))
}

/// Reads every result back, from a mount of its own.
pub(super) async fn read_back(data: &DataDir, mounts: &mut Mounts) -> anyhow::Result<Kept> {
    let other = data.root().join(MOUNTS[1]);
    if let Err(why) = mounts.mount(data, &other).await? {
        anyhow::bail!("a second mount is not possible: {why}");
    }
    let (here, there) = (data.root().join(MOUNTS[0]).join(RESULTS), other.join(RESULTS));
    let read = tokio::task::spawn_blocking(move || compare(&here, &there));
    read.await?.context("failed to read the results back")
}

fn compare(here: &Path, there: &Path) -> std::io::Result<Kept> {
    let mut kept = Kept { written: std::fs::read_dir(here)?.count() as u64, ..Kept::default() };
    for entry in std::fs::read_dir(there)? {
        let text = std::fs::read(entry?.path())?;
        let text = String::from_utf8_lossy(&text);
        kept.read += u64::from(text.lines().last() == Some(WHOLE));
    }
    Ok(kept)
}

/// How many records the changelog has, and the last of them.
pub(super) async fn last_change(data: &DataDir) -> anyhow::Result<Option<(i64, String)>> {
    let topic = topic(NAME);
    let topics: Vec<Topic> = get(data, "/api/topics").await?;
    let found = topics.iter().find(|known| known.name == topic);
    let Some(partition) = found.and_then(|topic| topic.partitions.first()) else { return Ok(None) };
    let count = partition.end - partition.start;
    let path = format!("/api/topics/{}/records?from={}&max=1", escape(&topic), partition.end - 1);
    let page: Records = get(data, &path).await?;
    Ok(page.records.into_iter().next().and_then(|record| Some((count, record.value?))))
}

impl Mounts {
    /// Mounts the filesystem on a new directory, or says why that is not possible.
    async fn mount(&mut self, data: &DataDir, dir: &Path) -> anyhow::Result<Result<(), String>> {
        std::fs::create_dir(dir).with_context(|| format!("failed to make {}", dir.display()))?;
        let log = data.logs().join("demo-mount.log");
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--data").arg(data.root()).args(["fs", "mount", "--foreground", NAME]).arg(dir);
        // Its own process group: Ctrl-C is for the demo, which then unmounts.
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("failed to start the process of a mount")?;
        self.0.push(Mount { dir: dir.to_owned(), process });
        let mount = self.0.last_mut().expect("it was pushed");
        let started = Instant::now();
        while !is_mounted(dir)? {
            if mount.process.try_wait()?.is_some() {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                return Ok(Err(said.trim_end().lines().last().unwrap_or("it did not say why").to_owned()));
            }
            anyhow::ensure!(started.elapsed() < MOUNTED_WITHIN, "{} is not mounted in time", dir.display());
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(Ok(()))
    }

    /// Unmounts everything, whoever still uses it; returns when nothing is mounted any more. The cluster must still run, so
    /// that what is held back can be written.
    pub(super) async fn take_away(&mut self, data: &DataDir) -> anyhow::Result<()> {
        for Mount { dir, mut process } in self.0.drain(..) {
            if is_mounted(&dir)? && !umount(data, &dir, &[]).await? {
                umount(data, &dir, &["--lazy"]).await?;
            }
            if tokio::time::timeout(MOUNTED_WITHIN, process.wait()).await.is_err() {
                // A program in it does not end; the kernel gives it errors once the process is gone.
                process.kill().await.context("failed to end the process of a mount")?;
            }
            anyhow::ensure!(!is_mounted(&dir)?, "{} is still mounted", dir.display());
        }
        Ok(())
    }

    /// Leaves the mounts as they are.
    pub(super) fn keep(self) {
        // Without this the handles would end their processes.
        self.0.into_iter().for_each(|mount| std::mem::forget(mount.process));
    }
}

async fn umount(data: &DataDir, dir: &Path, options: &[&str]) -> anyhow::Result<bool> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--data").arg(data.root()).args(["fs", "umount"]).args(options).arg(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let ended = tokio::time::timeout(MOUNTED_WITHIN, command.kill_on_drop(true).status()).await;
    Ok(match ended {
        Ok(status) => status.context("failed to unmount")?.success(),
        Err(_) => false,
    })
}

fn is_mounted(dir: &Path) -> anyhow::Result<bool> {
    let all = mounts::all().context("failed to read the kernel's table of mounts")?;
    // The table has paths without links.
    let parent = dir.parent().and_then(|parent| parent.canonicalize().ok());
    let real = parent.zip(dir.file_name()).map(|(parent, name)| parent.join(name));
    Ok(all.iter().any(|mounted| Some(&mounted.dir) == real.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_count_when_they_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("a", "x\nexit 0\n"), ("b", "x\nexit 1\n"), ("c", "x\nexit 0"), ("d", "")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let kept = compare(dir.path(), dir.path()).unwrap();
        assert_eq!(kept, Kept { written: 4, read: 2, skipped: None });
        assert!(!kept.is_complete(4));
        assert!(Kept { written: 2, read: 2, skipped: None }.is_complete(2));
        assert!(!Kept { written: 2, read: 2, skipped: None }.is_complete(3));
        assert!(Kept { skipped: Some("no".to_owned()), ..Kept::default() }.is_complete(3));
    }
}
