//! What can be known before anything is started.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::errno::Errno;

use super::FUSERMOUNT;
use crate::lfs::mounts;

/// Where a plain user's mounts for others are permitted.
const FUSE_CONF: &str = "/etc/fuse.conf";

/// Whether this machine and this user can mount by FUSE.
pub(super) fn fuse(allow_other: bool) -> anyhow::Result<()> {
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        let how = match error.kind() {
            ErrorKind::NotFound => {
                "this kernel has no FUSE: `modprobe fuse` loads it; a container must be given the device (--device /dev/fuse)"
            }
            ErrorKind::PermissionDenied => "it is usually open to everybody: chmod 666 /dev/fuse, as root",
            _ => "a container must be allowed to mount (--cap-add SYS_ADMIN --device /dev/fuse)",
        };
        return Err(anyhow::anyhow!(error)).with_context(|| format!("failed to open /dev/fuse; {how}"));
    }
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    anyhow::ensure!(
        std::env::split_paths(&path).any(|dir| dir.join(FUSERMOUNT).is_file()),
        "{FUSERMOUNT} is not here, by which users that are not root mount; install fuse3 (apt-get install fuse3)"
    );
    let conf = std::fs::read_to_string(FUSE_CONF).unwrap_or_default();
    anyhow::ensure!(
        !allow_other || conf.lines().any(|line| line.trim() == "user_allow_other"),
        "-o allow_other: only root may offer a mount to others, unless {FUSE_CONF} has a line user_allow_other"
    );
    Ok(())
}

/// The directory to mount on, as an absolute path without links.
pub(super) fn directory(dir: &Path, nonempty: bool) -> anyhow::Result<PathBuf> {
    let shown = dir.display();
    let real = dir.canonicalize().map_err(|error| explain(dir, &error))?;
    let here = mounts::all().context("failed to read the kernel's table of mounts")?;
    if let Some(mounted) = here.iter().find(|mounted| mounted.dir == real) {
        // The kernel still knows what the directory of a dead mount was like; only what is in it cannot be read.
        std::fs::read_dir(&real).map_err(|error| explain(dir, &error))?;
        anyhow::bail!("{} is mounted on {shown} already", mounted.fs);
    }
    let entries = std::fs::read_dir(&real);
    let mut entries =
        entries.with_context(|| format!("failed to mount on {shown}: it must be a directory"))?;
    anyhow::ensure!(
        nonempty || entries.next().is_none(),
        "{shown} is not empty, and a mount would hide what is in it; choose another, or say -o nonempty"
    );
    Ok(real)
}

fn explain(dir: &Path, error: &std::io::Error) -> anyhow::Error {
    let shown = dir.display();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => anyhow::anyhow!("{shown} is not there; make it: mkdir -p {shown}"),
        Some(Errno::ENOTCONN | Errno::ECONNABORTED) => {
            anyhow::anyhow!(
                "on {shown} there is a mount whose process has died; take it away first: kiln fs umount {shown}"
            )
        }
        _ => anyhow::anyhow!("failed to look at {shown}: {}", crate::lfs::plain(error)),
    }
}

/// The directory of a mount, which may be dead.
pub(super) fn mounted(dir: &Path) -> anyhow::Result<PathBuf> {
    let real = match dir.canonicalize() {
        Ok(real) => real,
        // A dead mount cannot be looked at; the way to it can.
        Err(_) => std::path::absolute(dir)?,
    };
    let here = mounts::all().context("failed to read the kernel's table of mounts")?;
    if here.iter().any(|mounted| mounted.dir == real) {
        return Ok(real);
    }
    let known: Vec<String> = here.iter().map(|m| format!("{} on {}", m.fs, m.dir.display())).collect();
    let known = if known.is_empty() { "nothing of Kiln's is".to_owned() } else { known.join(", ") };
    anyhow::bail!("no filesystem of Kiln is mounted on {}; mounted: {known}", dir.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_looked_at_before_it_is_hidden() {
        let dir = tempfile::tempdir().unwrap();
        assert!(directory(dir.path(), false).is_ok());
        std::fs::write(dir.path().join("f"), "x").unwrap();
        assert!(directory(dir.path(), false).unwrap_err().to_string().contains("not empty"));
        assert!(directory(dir.path(), true).is_ok());
        assert!(
            directory(&dir.path().join("f"), false).unwrap_err().to_string().contains("must be a directory")
        );
        let absent = directory(&dir.path().join("x"), false).unwrap_err().to_string();
        assert!(absent.contains("mkdir -p"), "{absent}");
        assert!(mounted(dir.path()).unwrap_err().to_string().contains("is mounted on"));
    }
}
