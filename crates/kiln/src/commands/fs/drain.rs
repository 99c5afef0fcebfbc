//! `kiln fs drain-ost`. The data is moved by the server of the MDT; this marks the OST, and looks how far that is.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hyper::Method;

use super::path;
use crate::api::client::{change, get};
use crate::api::model::fs::{ChangedOst, Drain, Filesystem, Target};
use crate::commands::{exit, say};
use crate::paths::DataDir;
use crate::table::human_size;

/// How often it is looked how far it is.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Files that stay and are named on standard error.
const NAMED_MAX: usize = 20;

/// What is to be done with which OST.
pub(super) struct Arguments<'a> {
    pub name: &'a str,
    pub ost: &'a str,
    pub undo: bool,
    pub no_wait: bool,
    /// After so long without a file that moved it is given up, in seconds.
    pub patience: u64,
}

pub(super) async fn run(data: &DataDir, arguments: Arguments<'_>) -> anyhow::Result<ExitCode> {
    let Arguments { name, ost, undo, no_wait, patience } = arguments;
    let fs: Filesystem = get(data, &path(name)).await?;
    let osts = fs.targets.iter().filter(|target| target.kind == "ost");
    let found = osts.clone().find(|target| target.label == ost || target.index.to_string() == ost);
    let Some(found) = found else {
        let known: Vec<&str> = osts.map(|target| target.label.as_str()).collect();
        anyhow::bail!("{name} has no OST {ost}; it has {}", known.join(", "));
    };
    let changed = ChangedOst { draining: !undo };
    change(data, Method::PUT, &format!("{}/osts/{}", path(name), found.index), &changed).await?;
    let label = &found.label;
    if undo {
        say(&format!("{label} gets new objects again; what was moved stays where it is"))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!(
        "{label} gets no new objects, and those that are there move away; `kiln fs status {name}` shows how far that is"
    ))?;
    if no_wait {
        return Ok(ExitCode::SUCCESS);
    }
    let waiting = Waiting { name, label, patience: Duration::from_secs(patience) };
    waiting.until_drained(data).await
}

/// Waits for an OST to be empty.
struct Waiting<'a> {
    name: &'a str,
    label: &'a str,
    patience: Duration,
}

impl Waiting<'_> {
    async fn until_drained(&self, data: &DataDir) -> anyhow::Result<ExitCode> {
        let mut progress = Progress { live: std::io::stderr().is_terminal(), shown: false };
        let mut heard = Instant::now();
        loop {
            // The leader, or the MDT, may be started again meanwhile, and goes on with it.
            let looked = get::<Filesystem>(data, &path(self.name)).await;
            let target = looked.as_ref().ok().and_then(|fs| self.target(fs));
            match (&looked, target) {
                (Ok(_), None) => anyhow::bail!("{} is not there any more", self.label),
                (Ok(_), Some(target)) if !target.draining => {
                    progress.end();
                    anyhow::bail!("{} is not drained any more: somebody has undone it", self.label);
                }
                (_, Some(Target { drain: Some(drain), .. })) => {
                    heard = Instant::now();
                    progress.show(self.label, drain);
                    if let Some(code) = self.judge(drain, &mut progress)? {
                        return Ok(code);
                    }
                }
                _ if heard.elapsed() > self.patience => {
                    progress.end();
                    looked?;
                    anyhow::bail!(
                        "the MDT does not tell how far {} is; `kiln fs status {}` shows the targets",
                        self.label,
                        self.name
                    );
                }
                _ => {}
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn target<'f>(&self, fs: &'f Filesystem) -> Option<&'f Target> {
        fs.targets.iter().find(|target| target.label == self.label)
    }

    /// Whether that is the end.
    fn judge(&self, drain: &Drain, progress: &mut Progress) -> anyhow::Result<Option<ExitCode>> {
        let label = self.label;
        if drain.state == Drain::DRAINED {
            progress.end();
            let (files, bytes) = (drain.moved_files, human_size(drain.moved_bytes));
            say(&format!(
                "{label} is drained: {files} files, {bytes} were moved, and it holds no objects any more"
            ))?;
            return Ok(Some(ExitCode::SUCCESS));
        }
        let stays = drain.left_files > 0 && drain.kept_files > 0;
        if !stays || Duration::from_secs(drain.still_seconds) < self.patience {
            return Ok(None);
        }
        progress.end();
        for kept in drain.kept.iter().take(NAMED_MAX) {
            eprintln!("kiln: /{} stays on {label}: {}", kept.path, kept.reason);
        }
        let named = drain.kept.len().min(NAMED_MAX) as u64;
        if drain.kept_files > named {
            eprintln!("kiln: and {} more files", drain.kept_files - named);
        }
        eprintln!(
            "kiln: {label} still has objects of {} files. They are tried again for as long as it drains: close what is open (fuser -v FILE names who has it), and run this again",
            drain.left_files
        );
        Ok(Some(ExitCode::from(exit::FAILED)))
    }
}

/// A line on a terminal that changes.
struct Progress {
    live: bool,
    shown: bool,
}

impl Progress {
    fn show(&mut self, label: &str, drain: &Drain) {
        if self.live {
            // A terminal that takes nothing is no reason to stop.
            let _ = write!(std::io::stderr(), "\r\x1b[K{label}: {}", line(drain));
            self.shown = true;
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.shown) {
            eprintln!();
        }
    }
}

/// How far it is, in a few words.
pub(super) fn line(drain: &Drain) -> String {
    if drain.state == Drain::DRAINED {
        return "drained".to_owned();
    }
    if drain.state == Drain::COUNTING {
        return "draining".to_owned();
    }
    let kept = match drain.kept_files {
        0 => String::new(),
        kept => format!(", {kept} of them in use"),
    };
    let left = human_size(drain.left_bytes);
    format!(
        "draining, {} files ({left}) left{kept}, {} files ({}) moved",
        drain.left_files,
        drain.moved_files,
        human_size(drain.moved_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_it_is_fits_in_a_line() {
        let mut drain = Drain {
            state: Drain::MOVING.to_owned(),
            left_files: 3,
            left_bytes: 2 << 20,
            moved_files: 7,
            moved_bytes: 1 << 20,
            kept_files: 0,
            kept: Vec::new(),
            still_seconds: 0,
        };
        let (two, one) = (human_size(2 << 20), human_size(1 << 20));
        assert_eq!(line(&drain), format!("draining, 3 files ({two}) left, 7 files ({one}) moved"));
        drain.kept_files = 2;
        assert!(line(&drain).contains("left, 2 of them in use, 7"));
        drain.state = Drain::DRAINED.to_owned();
        assert_eq!(line(&drain), "drained");
    }
}
