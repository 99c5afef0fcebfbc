//! `lfs quota`: what users, groups and projects use, and may use.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_fs::client::control::{self, Quota};
use kiln_fs::core::Role;
use kiln_fs::core::quota::{BLOCK_BYTES, QuotaKind, Tally};
use kiln_fs::core::target::uuid;
use nix::unistd::{Gid, Group, Uid, User};

use super::{Done, Fail, attribute, mounts, print};

/// Units of space in a KiB.
const BLOCKS_PER_KIB: u64 = 1024 / BLOCK_BYTES;

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    kind: Option<QuotaKind>,
    /// The times of grace, not what is used.
    grace: bool,
    human: bool,
    verbose: bool,
    /// Whose, and where.
    words: Vec<String>,
}

impl Asked {
    fn parse(words: &[String]) -> Result<Asked, Fail> {
        let mut asked = Asked::default();
        for word in words {
            let Some(flags) = word.strip_prefix('-').filter(|flags| !flags.is_empty()) else {
                asked.words.push(word.clone());
                continue;
            };
            for flag in flags.chars() {
                match flag {
                    't' => asked.grace = true,
                    'h' => asked.human = true,
                    'v' => asked.verbose = true,
                    'q' => {}
                    _ => asked.kind = Some(kind_of(flag).ok_or_else(|| unknown(flag))?),
                }
            }
        }
        Ok(asked)
    }
}

fn unknown(flag: char) -> Fail {
    Fail::usage(format!("unrecognized option '-{flag}'"))
}

/// The kind that an option means.
pub(super) fn kind_of(flag: char) -> Option<QuotaKind> {
    match flag {
        'u' => Some(QuotaKind::User),
        'g' => Some(QuotaKind::Group),
        'p' => Some(QuotaKind::Project),
        _ => None,
    }
}

/// A number, or a name that the system knows.
pub(super) fn id_of(kind: QuotaKind, word: &str) -> Result<u32, Fail> {
    let named = match kind {
        QuotaKind::User => User::from_name(word).ok().flatten().map(|user| user.uid.as_raw()),
        QuotaKind::Group => Group::from_name(word).ok().flatten().map(|group| group.gid.as_raw()),
        QuotaKind::Project => None,
    };
    let id = named.or_else(|| word.parse().ok());
    id.ok_or_else(|| Fail::usage(format!("can't find id for name: {word}")))
}

/// The name of an id, or the id.
fn name_of(kind: QuotaKind, id: u32) -> String {
    let named = match kind {
        QuotaKind::User => User::from_uid(Uid::from_raw(id)).ok().flatten().map(|user| user.name),
        QuotaKind::Group => Group::from_gid(Gid::from_raw(id)).ok().flatten().map(|group| group.name),
        QuotaKind::Project => None,
    };
    named.unwrap_or_else(|| id.to_string())
}

/// How Lustre calls a kind.
fn word_of(kind: QuotaKind) -> &'static str {
    match kind {
        QuotaKind::User => "usr",
        QuotaKind::Group => "grp",
        QuotaKind::Project => "prj",
    }
}

pub(super) fn quota(words: &[String]) -> Done {
    let asked = Asked::parse(words)?;
    let (whose, mount) = match (asked.kind, asked.words.as_slice()) {
        (Some(kind), [mount]) if asked.grace => return print(&grace(&get(mount, kind, 0)?)),
        (Some(kind), [word, mount]) if !asked.grace => (vec![(kind, id_of(kind, word)?)], mount),
        (Some(QuotaKind::User), [mount]) => (vec![(QuotaKind::User, own_uid())], mount),
        (Some(QuotaKind::Group), [mount]) => (vec![(QuotaKind::Group, own_gid())], mount),
        (None, [mount]) if !asked.grace => {
            (vec![(QuotaKind::User, own_uid()), (QuotaKind::Group, own_gid())], mount)
        }
        _ => return Err(Fail::usage("a mount is needed, and before it whose quota")),
    };
    mounts::of(Path::new(mount))?;
    for (kind, id) in whose {
        let quota = get(mount, kind, id)?;
        let table = Table { mount, human: asked.human, verbose: asked.verbose, now: now() };
        print(&table.of(kind, id, &name_of(kind, id), &quota))?;
    }
    Ok(())
}

fn get(mount: &str, kind: QuotaKind, id: u32) -> Result<Quota, Fail> {
    attribute::get(Path::new(mount), &control::quota_of(kind, id))
}

fn own_uid() -> u32 {
    Uid::current().as_raw()
}

fn own_gid() -> u32 {
    Gid::current().as_raw()
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn grace(quota: &Quota) -> String {
    let (space, inodes) = (time(quota.grace.space_secs), time(quota.grace.inode_secs));
    format!("Block grace time: {space}; Inode grace time: {inodes}\n")
}

/// What is printed of somebody's quota.
struct Table<'a> {
    mount: &'a str,
    human: bool,
    verbose: bool,
    now: i64,
}

impl Table<'_> {
    fn of(&self, kind: QuotaKind, id: u32, name: &str, quota: &Quota) -> String {
        let word = word_of(kind);
        let mut text = format!("Disk quotas for {word} {name} ({}id {id}):\n", &word[..1]);
        let used = if self.human { "used" } else { "kbytes" };
        let heads = [used, "quota", "limit", "grace", "files", "quota", "limit", "grace"];
        let _ = write!(text, "{:>16}", "Filesystem");
        for head in heads {
            let _ = write!(text, "{head:>8}");
        }
        text.push('\n');
        let account = &quota.account;
        text += &self.row(self.mount, &account.space, &account.inodes);
        if self.verbose {
            let unlimited = |used| Tally { used, ..Tally::default() };
            let (space, inodes) = (unlimited(account.space.used), unlimited(account.inodes.used));
            text += &self.row(&uuid(&quota.fs, Role::Mdt(0)), &space, &inodes);
            let (inodes, space) = (account.inodes.limits.hard, account.space.limits.hard / BLOCKS_PER_KIB);
            let _ =
                writeln!(text, "Total allocated inode limit: {inodes}, total allocated block limit: {space}");
        }
        text
    }

    fn row(&self, name: &str, space: &Tally, inodes: &Tally) -> String {
        // What is longer than its column gets a line of its own.
        let name = if name.len() > 15 { format!("{name}\n{:16}", "") } else { format!("{name:>16}") };
        let kib = |blocks: u64| self.kib(blocks.div_ceil(BLOCKS_PER_KIB));
        name + &self.cells(space, kib) + &self.cells(inodes, |count| count.to_string()) + "\n"
    }

    fn cells(&self, tally: &Tally, shown: impl Fn(u64) -> String) -> String {
        let hard = tally.limits.hard > 0 && tally.used >= tally.limits.hard;
        let star = if hard || tally.grace_ends.is_some() { '*' } else { ' ' };
        let grace = match tally.grace_ends {
            Some(ends) if ends <= self.now => "none".to_owned(),
            Some(ends) => time(ends.abs_diff(self.now)),
            None => "-".to_owned(),
        };
        let [used, soft, hard] = [tally.used, tally.limits.soft, tally.limits.hard].map(shown);
        // The star stands in for the blank before the next column.
        format!("{used:>8}{star}{soft:>7}{hard:>8}{grace:>8}")
    }

    /// `3.5M` for people, four digits at most; KiB without a unit otherwise.
    fn kib(&self, kib: u64) -> String {
        const UNITS: [(u32, char); 4] = [(40, 'P'), (30, 'T'), (20, 'G'), (10, 'M')];
        if !self.human {
            return kib.to_string();
        }
        let unit = UNITS.into_iter().find(|(shift, _)| kib >> shift > 0);
        unit.map_or_else(
            || format!("{kib}k"),
            |(shift, unit)| format!("{}{unit}", four_digits(kib as f64 / (1_u64 << shift) as f64)),
        )
    }
}

/// As `%.4g` of printf(3) writes what is from 1 to below 1024.
fn four_digits(value: f64) -> String {
    let decimals = match value {
        value if value < 10.0 => 3,
        value if value < 100.0 => 2,
        value if value < 1000.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

const TIMES: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

/// `6d23h59m`, as Lustre writes a time.
fn time(secs: u64) -> String {
    let mut rest = secs;
    let mut text = String::new();
    for (unit, secs) in TIMES {
        if rest / secs > 0 {
            let _ = write!(text, "{}{unit}", rest / secs);
        }
        rest %= secs;
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// The seconds of a time as [`time`] writes it, or of a plain number.
pub(super) fn secs_of(text: &str) -> Option<u64> {
    let (mut sum, mut digits) = (0_u64, String::new());
    for letter in text.chars() {
        if letter.is_ascii_digit() {
            digits.push(letter);
            continue;
        }
        let (_, secs) = TIMES.into_iter().find(|(unit, _)| *unit == letter)?;
        sum = sum.checked_add(std::mem::take(&mut digits).parse::<u64>().ok()?.checked_mul(secs)?)?;
    }
    match digits.as_str() {
        "" if text.is_empty() => None,
        "" => Some(sum),
        digits => sum.checked_add(digits.parse().ok()?),
    }
}

#[cfg(test)]
mod tests {
    use kiln_fs::core::quota::{Account, Grace, Limits};

    use super::*;

    fn quota(space: Tally, inodes: Tally) -> Quota {
        Quota { fs: "scratch".to_owned(), account: Account { space, inodes }, grace: Grace::default() }
    }

    fn tally(used: u64, soft: u64, hard: u64, grace_ends: Option<i64>) -> Tally {
        Tally { used, limits: Limits { soft, hard }, grace_ends }
    }

    fn table(mount: &str) -> Table<'_> {
        Table { mount, human: false, verbose: false, now: 1000 }
    }

    #[test]
    fn the_table_is_lustres() {
        let none = quota(tally(8720, 0, 0, None), tally(265, 0, 0, None));
        let expected = "\
Disk quotas for usr bob (uid 1000):
      Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace
     /mnt/lustre    4360       0       0       -     265       0       0       -
";
        assert_eq!(table("/mnt/lustre").of(QuotaKind::User, 1000, "bob", &none), expected);
    }

    #[test]
    fn who_is_over_has_a_star_and_a_grace() {
        let over = quota(tally(2049, 2048, 4096, Some(1000 + 90)), tally(5, 0, 5, None));
        let shown = table("/m").of(QuotaKind::Project, 7, "7", &over);
        assert!(shown.starts_with("Disk quotas for prj 7 (pid 7):\n"), "{shown}");
        let row = "              /m    1025*   1024    2048   1m30s       5*      0       5       -";
        assert_eq!(shown.lines().nth(2), Some(row));
        let late = quota(tally(9, 8, 0, Some(1000)), tally(0, 0, 0, None));
        let shown = table("/m").of(QuotaKind::Group, 7, "staff", &late);
        assert_eq!(shown.lines().nth(2).unwrap().split_ascii_whitespace().nth(4), Some("none"));
    }

    #[test]
    fn a_long_name_has_a_line_of_its_own_and_people_get_units() {
        let used = quota(tally(7 << 20, 0, 2 << 30, None), tally(1, 0, 9, None));
        let shown = Table { human: true, verbose: true, ..table("/mnt/a/long/mount") };
        let expected = "\
Disk quotas for usr bob (uid 1000):
      Filesystem    used   quota   limit   grace   files   quota   limit   grace
/mnt/a/long/mount
                    3.5G      0k      1T       -       1       0       9       -
scratch-MDT0000_UUID
                    3.5G      0k      0k       -       1       0       0       -
Total allocated inode limit: 9, total allocated block limit: 1073741824
";
        assert_eq!(shown.of(QuotaKind::User, 1000, "bob", &used), expected);
    }

    #[test]
    fn times_are_written_and_read() {
        for (secs, text) in [(604_800, "1w"), (90_061, "1d1h1m1s"), (0, "0s")] {
            assert_eq!((time(secs).as_str(), secs_of(text)), (text, Some(secs)));
        }
        assert_eq!(secs_of("120"), Some(120));
        for bad in ["", "w", "1y", "-1"] {
            assert_eq!(secs_of(bad), None, "{bad}");
        }
        let quota = quota(Tally::default(), Tally::default());
        assert_eq!(grace(&quota), "Block grace time: 1w; Inode grace time: 1w\n");
    }

    #[test]
    fn options_are_as_lustres() {
        let parse = |line: &str| Asked::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let asked = parse("-hvu bob /m").unwrap();
        assert_eq!((asked.kind, asked.human, asked.verbose), (Some(QuotaKind::User), true, true));
        assert_eq!(asked.words, ["bob", "/m"]);
        assert!(parse("-t -g /m").unwrap().grace);
        assert!(parse("-x /m").is_err());
    }
}
