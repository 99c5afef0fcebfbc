//! `kiln fs snapshot`, `snapshots`, `rollback`, and `destroy` of a snapshot.

use std::io::Write as _;
use std::process::ExitCode;

use hyper::Method;
use kiln_fs::core::target::split_snapshot;

use super::{destroy_at, path, served};
use crate::api::client::{change, escape, get};
use crate::api::model::fs::{Filesystem, NewSnapshot, Snapshot};
use crate::commands::{Usage, confirmed, exit, say};
use crate::paths::DataDir;
use crate::table::{self, human_size};

/// `NAME@SNAPSHOT`
fn split(name: &str) -> anyhow::Result<(&str, &str)> {
    let parts = split_snapshot(name).filter(|(fs, snapshot)| !fs.is_empty() && !snapshot.is_empty());
    parts.ok_or_else(|| {
        let how = "write the filesystem's name, '@' and a name for the snapshot, as in scratch@monday";
        Usage(format!("{name}: {how}")).into()
    })
}

fn path_of(fs: &str, snapshot: &str) -> String {
    format!("{}/snapshots/{}", path(fs), escape(snapshot))
}

pub(super) async fn make(data: &DataDir, name: &str) -> anyhow::Result<()> {
    let (fs, snapshot) = split(name)?;
    let new = NewSnapshot { name: snapshot.to_owned() };
    change(data, Method::POST, &format!("{}/snapshots", path(fs)), &new).await?;
    Ok(say(&format!("{name} is made; it is under .snapshots/{snapshot} where {fs} is mounted"))?)
}

pub(super) async fn list(data: &DataDir, name: Option<String>, json: bool) -> anyhow::Result<()> {
    let names = if let Some(name) = name {
        vec![name]
    } else {
        let all: Vec<Filesystem> = get(data, "/api/fs").await?;
        all.into_iter().map(|fs| fs.name).collect()
    };
    let mut snapshots: Vec<Snapshot> = Vec::new();
    for name in names {
        let of_fs: Vec<Snapshot> = get(data, &format!("{}/snapshots", path(&name))).await?;
        snapshots.extend(of_fs);
    }
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &snapshots)?;
        return Ok(writeln!(out)?);
    }
    let rows: Vec<Vec<String>> = snapshots.iter().map(row).collect();
    Ok(table::write(&mut out, &["NAME", "USED", "CREATED", "STATE"], &rows)?)
}

fn row(snapshot: &Snapshot) -> Vec<String> {
    let created = jiff::Timestamp::from_millisecond(snapshot.created).map(|created| {
        created.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    });
    vec![
        snapshot.name.clone(),
        snapshot.used.map_or_else(|| "-".to_owned(), human_size),
        created.unwrap_or_else(|_| "-".to_owned()),
        snapshot.failure.as_ref().map_or_else(|| "OK".to_owned(), |why| format!("not served: {why}")),
    ]
}

pub(super) async fn destroy(data: &DataDir, name: &str, yes: bool) -> anyhow::Result<ExitCode> {
    let (fs, snapshot) = split(name)?;
    if !yes && !confirmed("destroys", name, name)? {
        eprintln!("kiln: {name} stays as it is");
        return Ok(ExitCode::from(exit::FAILED));
    }
    destroy_at(data, name, &path_of(fs, snapshot)).await
}

pub(super) async fn roll_back(
    data: &DataDir,
    name: &str,
    yes: bool,
    force: bool,
) -> anyhow::Result<ExitCode> {
    let (fs, snapshot) = split(name)?;
    if !yes && !confirmed("takes back what was done since", name, name)? {
        eprintln!("kiln: {fs} stays as it is");
        return Ok(ExitCode::from(exit::FAILED));
    }
    let rollback = format!("{}/rollback?force={force}", path_of(fs, snapshot));
    change(data, Method::POST, &rollback, &()).await?;
    let served = served(data, fs).await?;
    if served.state != Filesystem::OK {
        eprintln!(
            "kiln: {fs} is what it was at {name}, and not all of its targets are served; `kiln fs status {fs}` shows them"
        );
        return Ok(ExitCode::from(exit::FAILED));
    }
    say(&format!("{fs} is what it was at {name}"))?;
    Ok(ExitCode::SUCCESS)
}
