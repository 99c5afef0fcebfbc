//! `kiln fs`.

mod drain;
mod jobstats;
mod mount;
mod snapshots;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hyper::Method;
use kiln_fs::core::target::split_snapshot;

pub(super) use mount::{mount, umount};

use super::{Usage, exit, say};
use crate::api::client::{change, escape, get};
use crate::api::model::fs::{Drain, Filesystem, NewFilesystem, Place, Target};
use crate::cli::{Create, Fs};
use crate::paths::DataDir;
use crate::table::{self, human_size};

/// How long `create` waits until every target is served.
const SERVED_WITHIN: Duration = Duration::from_secs(30);
/// How often it looks.
const LOOK_AGAIN: Duration = Duration::from_millis(30);

pub(super) async fn run(data: &DataDir, verb: Fs) -> anyhow::Result<ExitCode> {
    match verb {
        Fs::Create(arguments) => return create(data, arguments).await,
        Fs::List { json } => list(data, json).await?,
        Fs::Status { name, json } => return status(data, name, json).await,
        Fs::AddOst { name, place } => add_ost(data, &name, &place).await?,
        Fs::DrainOst { name, ost, undo, no_wait, patience } => {
            let arguments = drain::Arguments { name: &name, ost: &ost, undo, no_wait, patience };
            return drain::run(data, arguments).await;
        }
        Fs::Snapshot { name } => snapshots::make(data, &name).await?,
        Fs::Snapshots { name, json } => snapshots::list(data, name, json).await?,
        Fs::Rollback { name, yes, force } => return snapshots::roll_back(data, &name, yes, force).await,
        Fs::Destroy { name, yes, .. } if split_snapshot(&name).is_some() => {
            return snapshots::destroy(data, &name, yes).await;
        }
        Fs::Destroy { name, yes, force } => return destroy(data, &name, yes, force).await,
        Fs::Jobstats { name, top, yaml, json } => {
            let form = match (yaml, json) {
                (true, _) => jobstats::Form::Yaml,
                (_, true) => jobstats::Form::Json,
                _ => jobstats::Form::Table { top },
            };
            jobstats::show(data, name, form).await?;
        }
        Fs::Mount(_) | Fs::Umount { .. } => unreachable!("handled by the caller, without a runtime"),
    }
    Ok(ExitCode::SUCCESS)
}

fn path(name: &str) -> String {
    format!("/api/fs/{}", escape(name))
}

/// `NODE` or `NODE:DIR`.
fn place(text: &str) -> anyhow::Result<Place> {
    let (node, dir) = match text.split_once(':') {
        None => (text, None),
        Some((node, dir)) => (node, Some(dir.to_owned())),
    };
    let complete = !node.is_empty() && dir.as_ref().is_none_or(|dir| dir.starts_with('/'));
    if !complete {
        let how = "write NODE, or NODE:/DIRECTORY, as in silicon2 or silicon2:/disks/1";
        return Err(Usage(format!("{text}: {how}")).into());
    }
    Ok(Place { node: node.to_owned(), dir })
}

async fn create(data: &DataDir, arguments: Create) -> anyhow::Result<ExitCode> {
    let Create { name, mdt, osts, no_wait } = arguments;
    let mdt = mdt.as_deref().map(place).transpose()?;
    let osts = osts.iter().map(|ost| place(ost)).collect::<anyhow::Result<_>>()?;
    let new = NewFilesystem { name: name.clone(), mdt, osts };
    if no_wait {
        change(data, Method::POST, "/api/fs", &new).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let fs = make(data, &new).await?;
    if fs.state != Filesystem::OK {
        write_targets(&mut std::io::stdout().lock(), &fs)?;
        eprintln!(
            "kiln: {name} is made, and not all of its targets are served; `kiln fs status {name}` shows them"
        );
        return Ok(ExitCode::from(exit::FAILED));
    }
    let osts = match fs.targets.len() - 1 {
        1 => "1 OST".to_owned(),
        osts => format!("{osts} OSTs"),
    };
    say(&format!("{name} is ready: 1 MDT, {osts}; mount it with: kiln fs mount {name} DIR"))?;
    Ok(ExitCode::SUCCESS)
}

/// Makes a filesystem, and waits for its targets to be served.
pub(super) async fn make(data: &DataDir, new: &NewFilesystem) -> anyhow::Result<Filesystem> {
    change(data, Method::POST, "/api/fs", new).await?;
    served(data, &new.name).await
}

/// The filesystem, once every target is served or has failed, or the time is over.
pub(super) async fn served(data: &DataDir, name: &str) -> anyhow::Result<Filesystem> {
    let started = Instant::now();
    loop {
        let fs: Filesystem = get(data, &path(name)).await?;
        let settled = |target: &Target| target.state == Target::SERVING || target.state == Target::FAILED;
        if fs.targets.iter().all(settled) || started.elapsed() > SERVED_WITHIN {
            return Ok(fs);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn list(data: &DataDir, json: bool) -> anyhow::Result<()> {
    let all: Vec<Filesystem> = get(data, "/api/fs").await?;
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &all)?;
        return Ok(writeln!(out)?);
    }
    let rows: Vec<Vec<String>> = all.iter().map(summary).collect();
    Ok(table::write(&mut out, &["NAME", "STATE", "OSTS", "SIZE", "USED", "FILES", "CLIENTS"], &rows)?)
}

fn summary(fs: &Filesystem) -> Vec<String> {
    let status = crate::api::model::FsStatus::of(fs);
    vec![
        fs.name.clone(),
        fs.state.clone(),
        (fs.targets.len() - 1).to_string(),
        human_size(status.total),
        human_size(status.used),
        status.files.to_string(),
        fs.clients.len().to_string(),
    ]
}

async fn status(data: &DataDir, name: Option<String>, json: bool) -> anyhow::Result<ExitCode> {
    let all: Vec<Filesystem> = match &name {
        Some(name) => vec![get(data, &path(name)).await?],
        None => get(data, "/api/fs").await?,
    };
    let mut out = std::io::stdout().lock();
    if json {
        match (&name, all.first()) {
            (Some(_), Some(one)) => serde_json::to_writer_pretty(&mut out, one)?,
            _ => serde_json::to_writer_pretty(&mut out, &all)?,
        }
        writeln!(out)?;
    } else {
        write_all(&mut out, &all)?;
    }
    let well = all.iter().all(|fs| fs.state == Filesystem::OK);
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(exit::NOT_READY) })
}

fn write_all(out: &mut impl Write, all: &[Filesystem]) -> std::io::Result<()> {
    if all.is_empty() {
        return writeln!(out, "there is no filesystem; make one with: kiln fs create NAME");
    }
    for (nth, fs) in all.iter().enumerate() {
        if nth > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{}  {}", fs.name, fs.state)?;
        writeln!(out)?;
        write_targets(out, fs)?;
        writeln!(out)?;
        write_clients(out, fs)?;
    }
    Ok(())
}

fn write_targets(out: &mut impl Write, fs: &Filesystem) -> std::io::Result<()> {
    let rows: Vec<Vec<String>> = fs.targets.iter().map(target).collect();
    table::write(out, &["TARGET", "NODE", "STATE", "SIZE", "USED", "FILES", "DIRECTORY"], &rows)?;
    for target in &fs.targets {
        if let Some(reason) = &target.reason {
            writeln!(out, "{} is {}: {reason}", target.label, target.state)?;
        }
        if let Some(drain) = target.drain.as_ref().filter(|drain| drain.state == Drain::MOVING) {
            writeln!(out, "{} is {}", target.label, drain::line(drain))?;
        }
    }
    Ok(())
}

fn target(target: &Target) -> Vec<String> {
    let state = match &target.drain {
        Some(drain) if drain.state == Drain::DRAINED => format!("{}, drained", target.state),
        _ if target.draining => format!("{}, draining", target.state),
        _ => target.state.clone(),
    };
    let size = |pick: fn(&crate::api::model::fs::Space) -> u64| {
        target.space.as_ref().map_or_else(|| "-".to_owned(), |space| human_size(pick(space)))
    };
    // An OST's inodes are those of the disk it is on, which others may use too.
    let files = target.space.filter(|_| target.kind == "mdt").map(|space| space.inodes_used.to_string());
    vec![
        target.label.clone(),
        target.node.clone(),
        state,
        size(|space| space.total),
        size(|space| space.used),
        files.unwrap_or_else(|| "-".to_owned()),
        target.dir.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

fn write_clients(out: &mut impl Write, fs: &Filesystem) -> std::io::Result<()> {
    if fs.clients.is_empty() {
        return writeln!(out, "nobody has it mounted");
    }
    let rows: Vec<Vec<String>> =
        fs.clients.iter().map(|client| vec![client.host.clone(), client.session.clone()]).collect();
    table::write(out, &["CLIENT", "SESSION"], &rows)
}

async fn add_ost(data: &DataDir, name: &str, text: &str) -> anyhow::Result<()> {
    let answer = change(data, Method::POST, &format!("{}/osts", path(name)), &place(text)?).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer)?;
    let label = answer["label"].as_str().unwrap_or_default();
    let fs = served(data, name).await?;
    let found = fs.targets.iter().find(|target| target.label == label);
    let found = found.context("the new OST is not among the targets of the filesystem")?;
    anyhow::ensure!(
        found.state == Target::SERVING,
        "{label} is entered, and not served yet: {}",
        found.reason.as_deref().unwrap_or("it is still starting")
    );
    Ok(say(&format!("{label} is served on {}; new files may use it from now on", found.node))?)
}

async fn destroy(data: &DataDir, name: &str, yes: bool, force: bool) -> anyhow::Result<ExitCode> {
    let fs: Filesystem = get(data, &path(name)).await?;
    if !yes && !confirmed(&fs)? {
        eprintln!("kiln: {name} stays as it is");
        return Ok(ExitCode::from(exit::FAILED));
    }
    destroy_at(data, name, &format!("{}?force={force}", path(name))).await
}

/// Destroys a filesystem or a snapshot, by its path in the API.
async fn destroy_at(data: &DataDir, name: &str, path: &str) -> anyhow::Result<ExitCode> {
    let answer = change(data, Method::DELETE, path, &()).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer)?;
    if answer["removed"] == true {
        say(&format!("{name} is destroyed"))?;
    } else {
        say(&format!("{name} is destroyed; a node still has data of it, and removes that when it can"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks for the name of a filesystem that is about to be lost.
fn confirmed(fs: &Filesystem) -> anyhow::Result<bool> {
    let status = crate::api::model::FsStatus::of(fs);
    let what = format!("{}: {} files, {}", fs.name, status.files, human_size(status.used));
    super::confirmed("destroys", &fs.name, &what)
}
