//! `lfs df`, `lfs osts`, `lfs mdts`.

use std::fmt::Write as _;
use std::path::Path;

use kiln_fs::client::control::{self, FsSpace};
use kiln_fs::core::target::uuid;
use kiln_fs::core::{OstIndex, Role};
use kiln_fs::wire::oss::Space;

use super::mounts::{self, Mounted};
use super::{Done, Fail, attribute, print};

/// What is shown.
#[derive(Clone, Copy, Default)]
struct Show {
    human: bool,
    inodes: bool,
}

pub(super) fn df(words: &[String]) -> Done {
    let mut show = Show::default();
    let mut paths = Vec::new();
    for word in words {
        match word.as_str() {
            "--human-readable" => show.human = true,
            "--inodes" => show.inodes = true,
            option if option.starts_with("--") => {
                return Err(Fail::usage(format!("unrecognized option '{option}'")));
            }
            flags if flags.len() > 1 && flags.starts_with('-') => {
                flags[1..].chars().try_for_each(|flag| show.flag(flag))?;
            }
            path => paths.push(path),
        }
    }
    each_mount(&paths, |mounted, space| print(&table(&mounted.dir.display().to_string(), space, show)))
}

impl Show {
    fn flag(&mut self, flag: char) -> Done {
        match flag {
            'h' => self.human = true,
            'i' => self.inodes = true,
            // Lazy and verbose: nothing waits here for long, and nothing is left out.
            'l' | 'v' => {}
            other => return Err(Fail::usage(format!("unrecognized option '-{other}'"))),
        }
        Ok(())
    }
}

/// `lfs osts` and `lfs mdts`: index, uuid and state of each target of a kind.
pub(super) fn targets(words: &[String], kind: &str) -> Done {
    let paths: Vec<&str> = words.iter().map(String::as_str).collect();
    let head = if kind == "OST" { "OBDS:\n" } else { "MDTS:\n" };
    each_mount(&paths, |_, fs| {
        let mut text = head.to_owned();
        for (role, space) in targets_of(fs).filter(|(role, _)| words_of(*role).0 == kind) {
            let state = if space.is_some() { "ACTIVE" } else { "INACTIVE" };
            let _ = writeln!(text, "{}: {} {state}", words_of(role).1, uuid(&fs.fs, role));
        }
        print(&text)
    })
}

/// Shows each mount that is asked for, or all.
fn each_mount(paths: &[&str], show: impl Fn(&Mounted, &FsSpace) -> Done) -> Done {
    let mounts = if paths.is_empty() {
        mounts::all().map_err(Fail::failed)?
    } else {
        paths.iter().map(|path| mounts::of(Path::new(path))).collect::<Result<_, _>>()?
    };
    if mounts.is_empty() {
        return Err(Fail::failed(
            "no filesystem of Kiln is mounted here; mount one with: kiln fs mount NAME DIR",
        ));
    }
    // One that does not answer keeps nobody from seeing the others.
    let mut outcome = Ok(());
    for mounted in mounts {
        let shown = attribute::get(&mounted.dir, control::SPACE).and_then(|space| show(&mounted, &space));
        if let (Err(before), Err(_)) = (&outcome, &shown) {
            eprintln!("lfs df: {before}");
        }
        outcome = shown.and(outcome);
    }
    outcome
}

/// Each target, MDTs first.
fn targets_of(fs: &FsSpace) -> impl Iterator<Item = (Role, Option<Space>)> {
    let mdts = fs.mdts.iter().zip(0..).map(|(space, index)| (Role::Mdt(index), *space));
    mdts.chain(fs.osts.iter().map(|ost| (Role::Ost(ost.index), ost.space)))
}

/// `OST` and its index.
fn words_of(role: Role) -> (&'static str, u16) {
    match role {
        Role::Mdt(index) => ("MDT", index),
        Role::Ost(OstIndex(index)) => ("OST", index),
    }
}

/// Total, used and available, in bytes or in inodes.
#[derive(Clone, Copy, Default)]
struct Figures {
    total: u64,
    used: u64,
    available: u64,
}

impl Figures {
    fn bytes(space: &Space) -> Figures {
        let used = space.total_bytes.saturating_sub(space.free_bytes);
        Figures { total: space.total_bytes, used, available: space.available_bytes }
    }

    fn inodes(space: &Space) -> Figures {
        let used = space.inodes.saturating_sub(space.free_inodes);
        Figures { total: space.inodes, used, available: space.free_inodes }
    }

    fn sum(all: impl Iterator<Item = Figures>) -> Figures {
        all.fold(Figures::default(), |sum, next| Figures {
            total: sum.total.saturating_add(next.total),
            used: sum.used.saturating_add(next.used),
            available: sum.available.saturating_add(next.available),
        })
    }

    /// What of the space that anybody may use is used, rounded up as df(1) does.
    fn percent(self) -> u64 {
        let all = self.used as f64 + self.available as f64;
        if all > 0.0 { (self.used as f64 / all * 100.0).ceil() as u64 } else { 0 }
    }

    fn row(self, name: &str, mounted: &str, show: Show) -> String {
        let cell = |value: u64| match (show.human, show.inodes) {
            (true, _) => human(value),
            (false, true) => value.to_string(),
            (false, false) => (value >> 10).to_string(),
        };
        let [total, used, available] = [self.total, self.used, self.available].map(cell);
        format!("{name:<20} {total:>11} {used:>11} {available:>11} {:>3}% {mounted}", self.percent())
    }
}

/// `13.0G`, as `lfs df -h` writes it; what is below one unit stays a number.
fn human(value: u64) -> String {
    let (mut size, mut units) = (value as f64, "KMGTPE".chars());
    let mut unit = None;
    while size > 1024.0 {
        let Some(next) = units.next() else { break };
        (size, unit) = (size / 1024.0, Some(next));
    }
    unit.map_or_else(|| value.to_string(), |unit| format!("{size:.1}{unit}"))
}

fn table(dir: &str, fs: &FsSpace, show: Show) -> String {
    let heads = match (show.inodes, show.human) {
        (true, _) => ["Inodes", "IUsed", "IFree", "IUse%"],
        (false, true) => ["bytes", "Used", "Available", "Use%"],
        (false, false) => ["1K-blocks", "Used", "Available", "Use%"],
    };
    let [total, used, available, percent] = heads;
    let mut text = format!("{:<20} {total:>11} {used:>11} {available:>11} {percent:>4} Mounted on\n", "UUID");
    let figures = if show.inodes { Figures::inodes } else { Figures::bytes };
    for (role, space) in targets_of(fs) {
        let (name, (kind, index)) = (uuid(&fs.fs, role), words_of(role));
        let row = match space {
            Some(space) => {
                figures(&space).row(&name, &format!("{dir}[{kind}:{index}]"), show) + flags(fs, role, &space)
            }
            None => format!("{name:<20}: inactive device"),
        };
        let _ = writeln!(text, "{row}");
    }
    let sum = if show.inodes { all_inodes(fs) } else { all_bytes(fs) };
    let _ = write!(text, "\n{}\n\n", sum.row("filesystem_summary:", dir, show));
    text
}

/// What is the matter with a target, in Lustre's letters.
fn flags(fs: &FsSpace, role: Role, space: &Space) -> &'static str {
    let drains = fs.osts.iter().any(|ost| Role::Ost(ost.index) == role && ost.draining);
    match (drains, space.available_bytes == 0) {
        (true, false) => " N",
        (true, true) => " NS",
        (false, true) => " S",
        (false, false) => "",
    }
}

/// Data is on the OSTs; what an MDT has besides is not counted.
fn all_bytes(fs: &FsSpace) -> Figures {
    Figures::sum(fs.osts.iter().filter_map(|ost| ost.space.as_ref()).map(Figures::bytes))
}

/// Inodes are on the MDTs; there can be no more than the OSTs have objects for.
fn all_inodes(fs: &FsSpace) -> Figures {
    let sum = Figures::sum(fs.mdts.iter().flatten().map(Figures::inodes));
    let objects = Figures::sum(fs.osts.iter().filter_map(|ost| ost.space.as_ref()).map(Figures::inodes));
    if objects.total > 0 && objects.available < sum.available {
        return Figures { total: sum.used + objects.available, available: objects.available, ..sum };
    }
    sum
}

#[cfg(test)]
mod tests {
    use kiln_fs::client::control::OstSpace;

    use super::*;

    fn space(total: u64, free: u64, inodes: u64, free_inodes: u64) -> Space {
        Space { total_bytes: total, free_bytes: free, available_bytes: free, inodes, free_inodes }
    }

    fn fs() -> FsSpace {
        let ost = |index, draining, space| OstSpace { index: OstIndex(index), draining, space };
        FsSpace {
            fs: "users".to_owned(),
            mdts: vec![Some(space(855_428_300, 852_177_715, 1000, 900))],
            osts: vec![
                ost(0, false, Some(space(2_791_728_742, 2_099_641_000, 500, 400))),
                ost(1, true, Some(space(2_791_728_742, 2_788_583_014, 500, 450))),
                ost(2, false, None),
            ],
        }
    }

    #[test]
    fn the_table_is_lustres() {
        let shown = table("/users", &fs(), Show { human: true, inodes: false });
        let expected = "\
UUID                       bytes        Used   Available Use% Mounted on
users-MDT0000_UUID        815.8M        3.1M      812.7M   1% /users[MDT:0]
users-OST0000_UUID          2.6G      660.0M        2.0G  25% /users[OST:0]
users-OST0001_UUID          2.6G        3.0M        2.6G   1% /users[OST:1] N
users-OST0002_UUID  : inactive device

filesystem_summary:         5.2G      663.0M        4.6G  13% /users

";
        assert_eq!(shown, expected);
    }

    #[test]
    fn inodes_and_blocks() {
        let shown = table("/m", &fs(), Show { human: false, inodes: true });
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[0], "UUID                      Inodes       IUsed       IFree IUse% Mounted on");
        assert_eq!(lines[1], "users-MDT0000_UUID          1000         100         900  10% /m[MDT:0]");
        assert_eq!(lines[6], "filesystem_summary:          950         100         850  11% /m");
        let shown = table("/m", &fs(), Show::default());
        assert_eq!(
            shown.lines().next(),
            Some("UUID                   1K-blocks        Used   Available Use% Mounted on")
        );
        assert!(
            shown.contains("users-OST0000_UUID       2726297      675866     2050430  25% /m[OST:0]"),
            "{shown}"
        );
    }
}
