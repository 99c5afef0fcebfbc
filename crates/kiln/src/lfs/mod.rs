//! The `lfs` command line: Lustre's user commands, on a mounted filesystem of Kiln.
//!
//! - [`mounts`]: which mounts there are; [`attribute`]: how a mount is asked (virtual extended attributes that its client answers).
//! - [`df`], [`getstripe`], [`setstripe`], [`fid`], [`find`], [`migrate`], [`quota`], [`setquota`], [`project`], [`changelog`]: one command each.
//!
//! What is printed follows Lustre 2.17 to the byte where scripts may rely on it. Where Lustre leaves its users alone with an error, a hint is added.

mod attribute;
mod changelog;
mod df;
mod fid;
mod find;
mod getstripe;
mod migrate;
pub(crate) mod mounts;
mod options;
mod project;
mod quota;
mod setquota;
mod setstripe;

use std::ffi::OsString;
use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

const HELP: &str = "\
Usage: lfs COMMAND ARGS

space and layout
   df [-hi] [PATH]                     space and inodes of each target
   getstripe [-d] [-r] [-cSi] PATH...  how files, or the new files of a directory, are spread
   setstripe [-c COUNT] [-S SIZE] [-i INDEX] [-E END ...]... PATH...
                                       make a file with this layout, or set a directory's default
   setstripe -d DIR...                 give a directory the filesystem's default again
   migrate [-c COUNT] [-S SIZE] [-i INDEX] [-E END ...]... FILE...
                                       give the data of a file another layout
   osts [PATH], mdts [PATH]            the targets

quotas
   quota [-hv] [-u|-g|-p WHOSE] MOUNT  what somebody uses and may use; without WHOSE what you do
   quota -t -u|-g|-p MOUNT             how long more than a soft limit may be used
   setquota -u|-g|-p WHOSE [-b SOFT] [-B HARD] [-i SOFT] [-I HARD] MOUNT
                                       limits of space (-b, -B; KiB without a unit) and of inodes; 0 is none
   setquota -t -u|-g|-p [-b TIME] [-i TIME] MOUNT
                                       how long more than a soft limit may be used, as 1w2d3h
   project [-d] [-r] PATH...           which project pays for files
   project [-p ID] [-s] [-r] PATH...   give files to a project; -s: what is made in a directory too; -C: to none

names
   path2fid PATH...                    the id of a file
   fid2path PATH FID...                the paths of an id
   find PATH... [-type T] [-name PATTERN] [-size N] [-mtime N] [-user U] [-ost N]
                                       files that match

changes
   changelog [--follow] [--user GROUP] FSNAME-MDT0000 [START [END]]
                                       what changed; with a group, what it has not read
   changelog_clear FSNAME-MDT0000 GROUP INDEX
                                       a group has read the records up to this one; 0 is all

-E begins a component that ends there; options behind it are for that component: lfs setstripe -E 1M -L mdt -E -1 -c 4 DIR
Sizes take K, M, G, T. `lfs COMMAND --help` prints this too. Mount a filesystem with: kiln fs mount NAME DIR
";

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Fail {
    /// The words are wrong; Lustre ends with 1 and so does this.
    Usage(String),
    /// It could not be done.
    Failed(String),
}

impl Display for Fail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Fail::Usage(what) | Fail::Failed(what)) = self;
        f.write_str(what)
    }
}

impl std::error::Error for Fail {}

impl Fail {
    pub(super) fn usage(what: impl Display) -> Fail {
        Fail::Usage(what.to_string())
    }

    pub(super) fn failed(what: impl Display) -> Fail {
        Fail::Failed(what.to_string())
    }

    /// An error of the system on `path`.
    pub(super) fn at(path: &Path, error: &std::io::Error) -> Fail {
        Fail::Failed(format!("'{}': {}", path.display(), plain(error)))
    }
}

/// An error in the system's words, without the number that std puts behind them.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// What a command has printed goes out by the caller.
pub(super) type Done = Result<(), Fail>;

/// Runs `lfs` with these words, which do not include its own name.
pub(crate) fn main(arguments: Vec<OsString>) -> ExitCode {
    let words: Option<Vec<String>> = arguments.into_iter().map(|word| word.into_string().ok()).collect();
    let Some(words) = words else {
        eprintln!("lfs: arguments must be UTF-8");
        return ExitCode::FAILURE;
    };
    let Some((name, rest)) = words.split_first() else {
        eprint!("{HELP}");
        return ExitCode::FAILURE;
    };
    if name == "help" || name.trim_start_matches('-').starts_with('h') || rest.iter().any(|w| w == "--help") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    match command(name, rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Fail::Usage(what)) => {
            eprintln!("lfs {name}: {what}; `lfs help` shows how it is used");
            ExitCode::FAILURE
        }
        Err(Fail::Failed(what)) => {
            eprintln!("lfs {name}: {what}");
            ExitCode::FAILURE
        }
    }
}

fn command(name: &str, words: &[String]) -> Done {
    match name {
        "df" => df::df(words),
        "osts" => df::targets(words, "OST"),
        "mdts" => df::targets(words, "MDT"),
        "getstripe" => getstripe::getstripe(words),
        "setstripe" => setstripe::setstripe(words),
        "migrate" => migrate::migrate(words),
        "path2fid" => fid::path2fid(words),
        "fid2path" => fid::fid2path(words),
        "find" => find::find(words),
        "changelog" => changelog::changelog(words),
        "changelog_clear" => changelog::clear(words),
        "--version" | "-V" | "version" => say(&format!("lfs {} (kiln)", env!("CARGO_PKG_VERSION"))),
        "quota" => quota::quota(words),
        "setquota" => setquota::setquota(words),
        "project" => project::project(words),
        "hsm_state" | "mirror" | "mkdir" | "setdirstripe" | "getdirstripe" => {
            Err(Fail::failed("is not there yet; docs/filesystem.md says what is"))
        }
        _ => Err(Fail::usage("is no command of lfs")),
    }
}

/// Prints text, and ends quietly when nobody reads it any more.
pub(super) fn print(text: &str) -> Done {
    use std::io::Write as _;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(Fail::failed),
    }
}

/// Prints a line.
pub(super) fn say(line: &str) -> Done {
    print(&format!("{line}\n"))
}
