//! `lfs path2fid` and `lfs fid2path`.

use std::path::Path;

use kiln_fs::client::control;
use kiln_fs::core::Fid;

use super::{Done, Fail, attribute, mounts, print, say};

pub(super) fn path2fid(words: &[String]) -> Done {
    if words.is_empty() {
        return Err(Fail::usage("at least one path is needed"));
    }
    for word in words {
        let path = Path::new(word);
        let fid = attribute::get_raw(path, control::FID).map_err(|error| attribute::explain(path, &error))?;
        let fid = String::from_utf8_lossy(&fid);
        // As Lustre: with several, each with its path.
        if words.len() > 1 { say(&format!("{word}: {fid}"))? } else { say(&fid)? }
    }
    Ok(())
}

pub(super) fn fid2path(words: &[String]) -> Done {
    let [place, fids @ ..] = words else {
        return Err(Fail::usage("a filesystem's name or a path on it is needed, and FIDs"));
    };
    if fids.is_empty() {
        return Err(Fail::usage("at least one FID is needed"));
    }
    let dir = directory(place)?;
    for text in fids {
        let Fid(ino) = text.parse().map_err(|bad| Fail::failed(format!("'{text}': {bad}")))?;
        let value = attribute::get_raw(&dir, &control::paths_of(ino)).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ESTALE) => {
                    Fail::failed(format!("cannot find '{text}': No such file or directory"))
                }
                _ => attribute::explain(&dir, &error),
            }
        })?;
        for path in control::decode_paths(&value) {
            let path = String::from_utf8_lossy(path);
            print(&format!("{}\n", dir.join(&*path).display()))?;
        }
    }
    Ok(())
}

/// Where the filesystem of this name, or of this path, is mounted.
fn directory(place: &str) -> Result<std::path::PathBuf, Fail> {
    let named = mounts::all().map_err(Fail::failed)?.into_iter().find(|mounted| mounted.fs == place);
    match named {
        Some(mounted) => Ok(mounted.dir),
        None => mounts::of(Path::new(place)).map(|mounted| mounted.dir),
    }
}
