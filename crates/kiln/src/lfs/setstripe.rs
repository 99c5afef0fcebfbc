//! `lfs setstripe`.

use std::fs::File;
use std::path::Path;

use kiln_fs::client::control::{self, DefaultSpread};
use kiln_fs::core::Spread;

use super::options::Wanted;
use super::{Done, Fail, attribute};

pub(super) fn setstripe(words: &[String]) -> Done {
    let wanted = Wanted::parse(words)?;
    if wanted.delete && wanted.says_layout() {
        return Err(Fail::usage("-d takes no layout"));
    }
    for word in &wanted.paths {
        let path = Path::new(word);
        if wanted.delete {
            attribute::set(path, control::SPREAD, &None::<Spread>)?;
        } else if path.is_dir() {
            let spread = wanted.spread(&default_of(path)?)?;
            attribute::set(path, control::SPREAD, &Some(spread))?;
        } else {
            file(path, &wanted)?;
        }
    }
    Ok(())
}

/// Makes a file with a layout, or gives one to a file that is there and has no data yet.
fn file(path: &Path, wanted: &Wanted) -> Done {
    let spread = wanted.spread(&default_of(directory_of(path))?)?;
    let made = make(path)?;
    let set = attribute::set(path, control::SPREAD, &Some(spread));
    if set.is_err() && made {
        // Nobody asked for the file without the layout.
        let _ = std::fs::remove_file(path);
    }
    set
}

/// Makes an empty file; `false` when there was one.
fn make(path: &Path) -> Result<bool, Fail> {
    match File::create_new(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => match path.metadata() {
            Ok(there) if there.len() > 0 => Err(Fail::failed(format!(
                "'{0}' has data already, and keeps its layout; give it another with: lfs migrate ... {0}",
                path.display()
            ))),
            Ok(_) => Ok(false),
            Err(error) => Err(Fail::at(path, &error)),
        },
        Err(error) => Err(Fail::at(path, &error)),
    }
}

/// The directory that a file is in.
pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The layout that new files in a directory get.
pub(super) fn default_of(dir: &Path) -> Result<Spread, Fail> {
    attribute::get::<DefaultSpread>(dir, control::SPREAD).map(|default| default.spread)
}
