//! `lfs migrate`: another layout for data that is there.
//!
//! The data is copied to a new file with the layout, and then the two exchange their data in one step at the MDS; the file keeps its inode, its names and its
//! attributes. A file that changed meanwhile, or is open, keeps its layout.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_fs::client::control::{self, Swap};
use kiln_fs::core::{Fid, Layout};

use super::options::Wanted;
use super::setstripe::{default_of, directory_of};
use super::{Done, Fail, attribute};

pub(super) fn migrate(words: &[String]) -> Done {
    let wanted = Wanted::parse(words)?;
    if wanted.delete {
        return Err(Fail::usage("-d is for setstripe"));
    }
    for word in &wanted.paths {
        one(Path::new(word), &wanted)?;
    }
    Ok(())
}

/// A file that is open for longer is in use.
const CLOSED_WITHIN: Duration = Duration::from_secs(3);
/// How often it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Removes the copy when it is done with, or when something failed.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn one(path: &Path, wanted: &Wanted) -> Done {
    let dir = directory_of(path);
    let default = default_of(dir)?;
    let spread = if wanted.says_layout() { wanted.spread(&default)? } else { default };
    let source = File::open(path).map_err(|error| Fail::at(path, &error))?;
    let before = stamp(path)?;
    let layout: Layout = attribute::get(path, control::LAYOUT)?;
    let copy = Copy(dir.join(format!(".lfs-migrate.{}", std::process::id())));
    let target = File::create_new(&copy.0).map_err(|error| Fail::at(&copy.0, &error))?;
    attribute::set(&copy.0, control::SPREAD, &Some(spread))?;
    fill(source, target).map_err(|error| Fail::at(path, &error))?;
    let copied: Layout = attribute::get(&copy.0, control::LAYOUT)?;
    let swap =
        Swap { generation: layout.generation, other: inode(&copy.0)?, other_generation: copied.generation };
    exchange(path, before, &swap)
}

/// Mounts tell a moment later that a file was closed, so what looks open is looked at again.
fn exchange(path: &Path, before: Stamp, swap: &Swap) -> Done {
    let started = Instant::now();
    loop {
        // Each time: who had it open may have written to it.
        if stamp(path)? != before {
            return Err(Fail::failed(format!(
                "'{}' was changed meanwhile, and keeps its layout; try again",
                path.display()
            )));
        }
        match attribute::set_raw(path, control::SWAP, &control::encode(swap)) {
            Ok(()) => return Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EBUSY) if started.elapsed() < CLOSED_WITHIN => std::thread::sleep(LOOK_AGAIN),
                Some(libc::EBUSY) => {
                    let shown = path.display();
                    return Err(Fail::failed(format!(
                        "'{shown}' is open somewhere, and keeps its layout; `fuser -v {shown}` on each node names who has it"
                    )));
                }
                _ => return Err(attribute::explain(path, &error)),
            },
        }
    }
}

/// What changes with the content.
type Stamp = (u64, i64, i64);

fn stamp(path: &Path) -> Result<Stamp, Fail> {
    let stat = path.metadata().map_err(|error| Fail::at(path, &error))?;
    Ok((stat.len(), stat.mtime(), stat.mtime_nsec()))
}

fn fill(mut source: File, mut target: File) -> io::Result<()> {
    let len = source.metadata()?.len();
    io::copy(&mut source, &mut target)?;
    // A hole at the end has no bytes to copy.
    target.set_len(len)?;
    target.sync_all()
}

fn inode(path: &Path) -> Result<kiln_fs::core::Ino, Fail> {
    let fid = attribute::get_raw(path, control::FID).map_err(|error| attribute::explain(path, &error))?;
    let parsed = String::from_utf8_lossy(&fid).parse::<Fid>();
    parsed.map(|Fid(ino)| ino).map_err(|bad| Fail::failed(format!("'{}': {bad}", path.display())))
}
