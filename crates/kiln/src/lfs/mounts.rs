//! Which filesystems of Kiln are mounted here.

use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use kiln_fs::client::mount::SOURCE_PREFIX;

use super::Fail;

/// Types that mounts by FUSE have in the kernel's table: those of root, and those of others.
const TYPES: [&str; 2] = ["fuse", "fuse.kiln"];

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// The filesystem's name.
    pub fs: String,
    /// Where.
    pub dir: PathBuf,
}

/// Every mount of Kiln that this process sees.
pub(crate) fn all() -> std::io::Result<Vec<Mounted>> {
    Ok(std::fs::read_to_string("/proc/self/mountinfo")?.lines().filter_map(parse).collect())
}

/// The mount that `path` is on.
pub(super) fn of(path: &Path) -> Result<Mounted, Fail> {
    let real = path.canonicalize().map_err(|error| Fail::at(path, &error))?;
    let mounts = all().map_err(Fail::failed)?;
    let around = mounts.into_iter().filter(|mounted| real.starts_with(&mounted.dir));
    around.max_by_key(|mounted| mounted.dir.as_os_str().len()).ok_or_else(|| {
        Fail::failed(format!(
            "'{}' is not on a filesystem of Kiln; `lfs df` lists those that are mounted",
            path.display()
        ))
    })
}

/// A line of `mountinfo` (proc(5)), if it is of a mount of Kiln.
fn parse(line: &str) -> Option<Mounted> {
    let (front, back) = line.split_once(" - ")?;
    let mut back = back.split(' ');
    let (kind, source) = (back.next()?, back.next()?);
    let fs = source.strip_prefix(SOURCE_PREFIX).filter(|_| TYPES.contains(&kind))?;
    let dir = unescape(front.split(' ').nth(4)?);
    Some(Mounted { fs: fs.to_owned(), dir: PathBuf::from(std::ffi::OsString::from_vec(dir)) })
}

/// Blanks, tabs, newlines and backslashes are written as three octal digits behind a backslash.
fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut plain, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let code = text.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let escaped = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 4 } else { 1 };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_from_the_kernels_table() {
        let ours = r"97 26 0:46 / /mnt/a\040b rw,nosuid,nodev shared:5 - fuse.kiln kiln:scratch rw,user_id=0,group_id=0";
        let expected = Mounted { fs: "scratch".to_owned(), dir: "/mnt/a b".into() };
        assert_eq!(parse(ours), Some(expected.clone()));
        assert_eq!(parse(&ours.replace("fuse.kiln", "fuse")), Some(expected));
        assert_eq!(parse(&ours.replace("kiln:", "sshfs:")), None);
        assert_eq!(parse("26 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw"), None);
        assert_eq!(parse("garbage"), None);
        assert_eq!(unescape(r"a\134b\0"), br"a\b\0");
    }
}
