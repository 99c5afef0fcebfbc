//! `lfs migrate`: another layout for data that is there.
//!
//! The data is copied to a new file with the layout, and then the two exchange their data in one step at the MDS; the file keeps its inode, its names and its
//! attributes. A file that changed meanwhile keeps its layout.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

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
    fill(source, &target).map_err(|error| Fail::at(path, &error))?;
    let copied: Layout = attribute::get(&copy.0, control::LAYOUT)?;
    if stamp(path)? != before {
        return Err(Fail::failed(format!(
            "'{}' was changed meanwhile, and keeps its layout; try again",
            path.display()
        )));
    }
    let swap =
        Swap { generation: layout.generation, other: inode(&copy.0)?, other_generation: copied.generation };
    attribute::set(path, control::SWAP, &swap)
}

/// What changes with the content.
fn stamp(path: &Path) -> Result<(u64, i64, i64), Fail> {
    let stat = path.metadata().map_err(|error| Fail::at(path, &error))?;
    Ok((stat.len(), stat.mtime(), stat.mtime_nsec()))
}

fn fill(mut source: File, mut target: &File) -> io::Result<()> {
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
