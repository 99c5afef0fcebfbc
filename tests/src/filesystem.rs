//! A filesystem of a running instance, mounted for a test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Output, run_within};
use crate::{Cluster, run};

/// The device that a mount needs.
const DEVICE: &str = "/dev/fuse";
/// A script that takes longer hangs. Shorter than what the test runner allows, so that the script's output is shown.
const SCRIPT_WITHIN: Duration = Duration::from_mins(9);

/// Whether this machine can mount; prints a note when it cannot. A test returns then.
pub fn can_mount() -> bool {
    let can = Path::new(DEVICE).exists();
    if !can {
        println!("note: not shown here, since {DEVICE} is missing");
    }
    can
}

/// A filesystem and its mounts. Dropping it unmounts; the instance is stopped after that, since it was started before.
#[derive(Debug)]
pub struct Filesystem<'a> {
    cluster: &'a Cluster,
    name: String,
    mounts: Vec<PathBuf>,
}

impl<'a> Filesystem<'a> {
    /// `kiln fs create NAME`, with further options.
    pub fn create(cluster: &'a Cluster, name: &str, options: &[&str]) -> Self {
        let _ = cluster.kiln(&[&["fs", "create", name], options].concat()).ok();
        Self { cluster, name: name.to_owned(), mounts: Vec::new() }
    }

    /// With `count` more mounts, each by a client of its own.
    #[must_use]
    pub fn mounted(mut self, count: usize) -> Self {
        for _ in 0..count {
            self.mount();
        }
        self
    }

    /// Mounts it once more, for all users: some scripts act as several.
    pub fn mount(&mut self) -> PathBuf {
        let dir = self.cluster.data().with_file_name(format!("mnt{}", self.mounts.len()));
        std::fs::create_dir(&dir).expect("a directory to mount on");
        // Remembered before it is tried, so that half a mount is taken away too.
        self.mounts.push(dir.clone());
        let _ = self.cluster.kiln(&["fs", "mount", "-o", "allow_other", &self.name, &text(&dir)]).ok();
        dir
    }

    /// Where it is mounted.
    pub fn mounts(&self) -> &[PathBuf] {
        &self.mounts
    }

    /// Runs `tests/python/fs/SCRIPT` on all mounts, with further arguments, and returns what it printed when it found nothing wrong.
    pub fn script(&self, script: &str, arguments: &[&str]) -> Output {
        let mut command = self.cluster.python_command(&format!("fs/{script}"), &[]);
        command.args(&self.mounts).args(arguments);
        let output = run_within(&mut command, SCRIPT_WITHIN).ok();
        print!("{}", output.stdout);
        output
    }

    /// The command, for a shell, that runs `tests/python/fs/SCRIPT` with these arguments.
    pub fn script_command(&self, script: &str, arguments: &[&str]) -> String {
        crate::process::shown(&self.cluster.python_command(&format!("fs/{script}"), arguments))
    }
}

impl Drop for Filesystem<'_> {
    fn drop(&mut self) {
        for dir in self.mounts.iter().filter(|dir| is_mounted(dir)) {
            let dir_text = text(dir);
            let output = self.cluster.kiln(&["fs", "umount", &dir_text]);
            if is_mounted(dir) {
                // A directory that is mounted would be looked into by whoever removes the test's files.
                let lazy = run(Command::new("umount").arg("--lazy").arg(dir));
                assert!(std::thread::panicking(), "`kiln fs umount` left {dir_text} mounted: {output}{lazy}");
            }
        }
    }
}

/// Whether something is mounted on `dir`, also when it answers nothing any more.
fn is_mounted(dir: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("the kernel's table of mounts");
    table.lines().any(|line| line.split(' ').nth(4) == dir.to_str())
}

/// A small filesystem in memory, for a target that is to be full. Dropping it unmounts it.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts a tmpfs of `mebibytes` on `dir`, which is made; none where that is not permitted, with a note.
    pub fn mount(dir: PathBuf, mebibytes: u32) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("note: not shown here, since mounting a small disk needs root");
            return None;
        }
        std::fs::create_dir(&dir).expect("a directory to mount on");
        let size = format!("size={mebibytes}m");
        let _ = run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&dir)).ok();
        Some(Self(dir))
    }

    /// Where a target may lie on it.
    pub fn target(&self) -> PathBuf {
        self.0.join("target")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The instance still has files open on it: it is stopped after this.
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_mounts_is_read() {
        assert!(is_mounted(Path::new("/")));
        assert!(!is_mounted(Path::new("/nothing/is/mounted/here")));
    }
}
