//! `lfs project`: which project pays for files.

use std::path::Path;

use kiln_fs::client::control::{self, Project, SetProject};

use super::{Done, Fail, attribute, say};

/// Directories below each other that are gone into.
const DEPTH_MAX: usize = 1000;

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    id: Option<u32>,
    /// `-s`: new entries take it.
    inherit: bool,
    /// `-C`: no project, and nothing is passed on.
    clear: bool,
    /// `-k`: the number stays with `-C`.
    keep: bool,
    /// `-d`: the directory itself is shown, and not what is in it.
    itself: bool,
    recursive: bool,
    paths: Vec<String>,
}

impl Asked {
    fn parse(words: &[String]) -> Result<Asked, Fail> {
        let mut asked = Asked::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some(flags) = word.strip_prefix('-').filter(|flags| !flags.is_empty()) else {
                asked.paths.push(word.clone());
                continue;
            };
            for (at, flag) in flags.char_indices() {
                if flag == 'p' {
                    let glued = Some(&flags[at + 1..]).filter(|glued| !glued.is_empty());
                    let value = glued.or_else(|| words.next().map(String::as_str)).unwrap_or_default();
                    let bad = || Fail::usage(format!("invalid project ID '{value}'"));
                    asked.id = Some(value.parse().map_err(|_| bad())?);
                    break;
                }
                asked.flag(flag)?;
            }
        }
        if asked.paths.is_empty() {
            return Err(Fail::usage("a path is needed"));
        }
        if asked.clear && (asked.inherit || asked.id.is_some()) {
            return Err(Fail::usage("-C goes with neither -s nor -p"));
        }
        Ok(asked)
    }

    fn flag(&mut self, flag: char) -> Done {
        let slot = match flag {
            's' => &mut self.inherit,
            'C' => &mut self.clear,
            'k' => &mut self.keep,
            'd' => &mut self.itself,
            'r' => &mut self.recursive,
            other => return Err(Fail::usage(format!("unrecognized option '-{other}'"))),
        };
        *slot = true;
        Ok(())
    }

    /// What is set; `None` to show.
    fn set(&self) -> Option<SetProject> {
        if self.clear {
            return Some(SetProject { id: (!self.keep).then_some(0), inherit: Some(false) });
        }
        let sets = self.id.is_some() || self.inherit;
        sets.then_some(SetProject { id: self.id, inherit: self.inherit.then_some(true) })
    }
}

pub(super) fn project(words: &[String]) -> Done {
    let asked = Asked::parse(words)?;
    for path in &asked.paths {
        let path = Path::new(path);
        match asked.set() {
            Some(set) => each(path, 0, &asked, &|path| attribute::set(path, control::PROJECT, &set))?,
            None if asked.itself || !path.is_dir() => show(path)?,
            None => children(path, 0, &asked, &show)?,
        }
    }
    Ok(())
}

fn show(path: &Path) -> Done {
    let Project { id, inherit } = attribute::get(path, control::PROJECT)?;
    say(&format!("{id:5} {} {}", if inherit { 'P' } else { '-' }, path.display()))
}

/// What is at `path`, and with `-r` what is below it.
fn each(path: &Path, depth: usize, asked: &Asked, act: &dyn Fn(&Path) -> Done) -> Done {
    if !is_ours(path)? {
        return Ok(());
    }
    act(path)?;
    if asked.recursive && is_directory(path)? { children(path, depth, asked, act) } else { Ok(()) }
}

fn children(path: &Path, depth: usize, asked: &Asked, act: &dyn Fn(&Path) -> Done) -> Done {
    if depth > DEPTH_MAX {
        return Err(Fail::failed(format!("'{}' is too deep", path.display())));
    }
    for entry in std::fs::read_dir(path).map_err(|error| Fail::at(path, &error))? {
        let entry = entry.map_err(|error| Fail::at(path, &error))?;
        each(&entry.path(), depth + 1, asked, act)?;
    }
    Ok(())
}

/// The kernel lets nobody give a virtual attribute to what is neither a file nor a directory.
fn is_ours(path: &Path) -> Result<bool, Fail> {
    let found = path.symlink_metadata().map_err(|error| Fail::at(path, &error))?;
    Ok(found.is_file() || found.is_dir())
}

fn is_directory(path: &Path) -> Result<bool, Fail> {
    path.symlink_metadata().map(|found| found.is_dir()).map_err(|error| Fail::at(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Asked, Fail> {
        Asked::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_as_lustres() {
        let asked = parse("-p 7 -s -r /m/a /m/b").unwrap();
        assert_eq!(asked.set(), Some(SetProject { id: Some(7), inherit: Some(true) }));
        assert!(asked.recursive && asked.paths == ["/m/a", "/m/b"]);
        assert_eq!(parse("-srp7 /m").unwrap().set(), Some(SetProject { id: Some(7), inherit: Some(true) }));
        assert_eq!(parse("-d /m").unwrap().set(), None);
        assert_eq!(parse("-C /m").unwrap().set(), Some(SetProject { id: Some(0), inherit: Some(false) }));
        assert_eq!(parse("-Ck /m").unwrap().set(), Some(SetProject { id: None, inherit: Some(false) }));
        for bad in ["-p x /m", "-C -s /m", "-z /m", "-p 1"] {
            assert!(matches!(parse(bad), Err(Fail::Usage(_))), "{bad}");
        }
    }
}
