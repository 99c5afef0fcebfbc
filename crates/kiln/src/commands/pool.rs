//! `kiln pool`; what it prints has the form of `zpool` of version 2.

mod print;
mod words;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use hyper::Method;
use kiln_fs::wire::pool::{Event, Importable, Pool as Status, Reply, Request, ScrubAct};

use self::words::{parse_property, parse_vdevs, shown};
use super::{Usage, confirmed, exit, say};
use crate::api::client::{change, get};
use crate::cli::Pool;
use crate::paths::DataDir;

/// How often `scrub --wait` looks.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

pub(super) async fn run(data: &DataDir, verb: Pool) -> anyhow::Result<ExitCode> {
    match verb {
        Pool::Create { name, vdevs, properties, force, node } => {
            let (vdevs, spares) = parse_vdevs(&vdevs)?;
            if vdevs.is_empty() {
                return Err(Usage("a pool needs disks besides spares".to_owned()).into());
            }
            let properties =
                properties.iter().map(|word| parse_property(word)).collect::<anyhow::Result<_>>()?;
            ask(data, Some(node), &Request::Create { name, vdevs, spares, properties, force }).await?;
        }
        Pool::Add { name, vdevs, force } => {
            let (vdevs, spares) = parse_vdevs(&vdevs)?;
            ask(data, None, &Request::Add { name, vdevs, spares, force }).await?;
        }
        Pool::Set { property, name } => {
            let (property, value) = parse_property(&property)?;
            ask(data, None, &Request::Set { name, property, value }).await?;
        }
        Pool::Get { property, name, json } => properties(data, &property, name.as_deref(), json).await?,
        Pool::List { name, json } => list(data, name.as_deref(), json).await?,
        Pool::Status { name, unhealthy, verbose, json } => {
            return status(data, name.as_deref(), unhealthy, verbose, json).await;
        }
        Pool::Events { name, json } => events(data, name.as_deref(), json).await?,
        Pool::History { name } => history(data, name).await?,
        Pool::Scrub { name, stop, pause, rate, wait } => {
            let act = match (stop, pause) {
                (true, _) => ScrubAct::Stop,
                (_, true) => ScrubAct::Pause,
                _ => ScrubAct::Start,
            };
            let rate = rate.map(|rate| rate.0);
            ask(data, None, &Request::Scrub { name: name.clone(), act, rate }).await?;
            if wait {
                return wait_for_scrub(data, &name).await;
            }
        }
        Pool::Destroy { name, yes } => {
            if !yes && !confirmed("destroys", &name, &format!("pool {name} with everything in it"))? {
                eprintln!("kiln: {name} stays as it is");
                return Ok(ExitCode::from(exit::FAILED));
            }
            ask(data, None, &Request::Destroy { name }).await?;
        }
        Pool::Export { name } => drop(ask(data, None, &Request::Export { name }).await?),
        Pool::Import { name: None, places, node, .. } => importable(data, node, &places).await?,
        Pool::Import { name: Some(name), places, force, node } => {
            let places = paths(&places)?;
            ask(data, Some(node), &Request::Import { name, places, force }).await?;
        }
        disks => drop(ask(data, None, &disks_request(disks)?).await?),
    }
    Ok(ExitCode::SUCCESS)
}

/// What is asked about the disks of a pool.
fn disks_request(verb: Pool) -> anyhow::Result<Request> {
    Ok(match verb {
        Pool::Offline { name, disk } => Request::Offline { name, disk: shown(&disk)? },
        Pool::Online { name, disk, at } => {
            let at = at.as_deref().map(shown).transpose()?;
            Request::Online { name, disk: shown(&disk)?, at }
        }
        Pool::Replace { name, disk, new, force } => {
            Request::Replace { name, disk: shown(&disk)?, new: shown(&new)?, force }
        }
        Pool::Attach { name, disk, new, force } => {
            Request::Attach { name, disk: shown(&disk)?, new: shown(&new)?, force }
        }
        Pool::Detach { name, disk } => Request::Detach { name, disk: shown(&disk)? },
        Pool::Remove { name, disk } => Request::Remove { name, disk: shown(&disk)? },
        other => anyhow::bail!("{other:?} is not about disks"),
    })
}

fn paths(places: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    places.iter().map(|place| shown(place)).collect()
}

async fn ask(data: &DataDir, node: Option<u32>, request: &Request) -> anyhow::Result<Reply> {
    let path = node.map_or_else(|| "/api/pools".to_owned(), |node| format!("/api/pools?node={node}"));
    let answer = change(data, Method::POST, &path, request).await?;
    serde_json::from_slice(&answer).context("failed to read what the node answered")
}

async fn pools(data: &DataDir, name: Option<&str>) -> anyhow::Result<Vec<Status>> {
    pools_at(data, "/api/pools", name).await
}

async fn pools_at(data: &DataDir, path: &str, name: Option<&str>) -> anyhow::Result<Vec<Status>> {
    let mut pools: Vec<Status> = get(data, path).await?;
    if let Some(name) = name {
        pools.retain(|pool| pool.name == name);
        anyhow::ensure!(!pools.is_empty(), "cannot open '{name}': no such pool");
    }
    Ok(pools)
}

async fn list(data: &DataDir, name: Option<&str>, json: bool) -> anyhow::Result<()> {
    let pools = pools(data, name).await?;
    if json {
        return Ok(say(&serde_json::to_string_pretty(&pools)?)?);
    }
    Ok(say(&if pools.is_empty() { "no pools available".to_owned() } else { print::table(&pools) })?)
}

async fn properties(data: &DataDir, property: &str, name: Option<&str>, json: bool) -> anyhow::Result<()> {
    let pools = pools(data, name).await?;
    let property = Some(property).filter(|property| *property != "all");
    if let Some(property) = property {
        let known = pools.iter().all(|pool| pool.properties.contains_key(property));
        anyhow::ensure!(
            known,
            "there is no property '{property}'; `kiln pool get all` shows those that there are"
        );
    }
    if json {
        let of = |pool: &Status| {
            let wanted =
                pool.properties.iter().filter(|(name, _)| property.is_none_or(|wanted| wanted == *name));
            let wanted: serde_json::Map<String, serde_json::Value> =
                wanted.map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            (pool.name.clone(), wanted.into())
        };
        let all: serde_json::Map<String, serde_json::Value> = pools.iter().map(of).collect();
        return Ok(say(&serde_json::to_string_pretty(&all)?)?);
    }
    Ok(say(&print::properties(&pools, property))?)
}

async fn events(data: &DataDir, name: Option<&str>, json: bool) -> anyhow::Result<()> {
    let mut events: Vec<Event> = get(data, "/api/pools/events").await?;
    events.retain(|event| name.is_none_or(|name| event.pool == name));
    if json {
        return Ok(say(&serde_json::to_string_pretty(&events)?)?);
    }
    Ok(say(&print::events(&events))?)
}

async fn history(data: &DataDir, name: Option<String>) -> anyhow::Result<()> {
    let names = match name {
        Some(name) => vec![name],
        None => pools(data, None).await?.into_iter().map(|pool| pool.name).collect(),
    };
    for name in names {
        let Reply::History(lines) = ask(data, None, &Request::History { name: name.clone() }).await? else {
            anyhow::bail!("the node answered something else");
        };
        say(&format!("History for '{name}':\n{}\n", lines.join("\n")))?;
    }
    Ok(())
}

async fn status(
    data: &DataDir,
    name: Option<&str>,
    unhealthy: bool,
    verbose: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut pools = pools_at(data, "/api/pools?paths=true", name).await?;
    if unhealthy {
        pools.retain(|pool| pool.state != "ONLINE" || pool.note.is_some() || print::damaged(pool) > 0);
    }
    if json {
        say(&serde_json::to_string_pretty(&pools)?)?;
    } else if pools.is_empty() {
        say(if unhealthy { "all pools are healthy" } else { "no pools available" })?;
    } else {
        let texts: Vec<String> = pools.iter().map(|pool| print::describe(pool, verbose)).collect();
        let mut out = std::io::stdout().lock();
        out.write_all(texts.join("\n").as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn wait_for_scrub(data: &DataDir, name: &str) -> anyhow::Result<ExitCode> {
    loop {
        let pools = pools(data, Some(name)).await?;
        let scan = pools.first().and_then(|pool| pool.scan.as_ref());
        match scan {
            Some(scan) if matches!(scan.state.as_str(), "running" | "paused") => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Some(scan) => {
                say(&format!("{name}: {}", print::describe_scan(scan)))?;
                let right = scan.state == "finished" && scan.damaged == 0;
                return Ok(if right { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) });
            }
            None => anyhow::bail!("no scrub of {name} is known; the pool may have been given up meanwhile"),
        }
    }
}

async fn importable(data: &DataDir, node: u32, places: &[PathBuf]) -> anyhow::Result<()> {
    let places = paths(places)?;
    let Reply::Importable(found) = ask(data, Some(node), &Request::Importable { places }).await? else {
        anyhow::bail!("the node answered something else");
    };
    if found.is_empty() {
        return Ok(say("no pools available to import")?);
    }
    let texts = found.iter().map(|pool| {
        let Importable { name, id, state, host, disks: (there, all) } = pool;
        let used = if state == "active" { format!(", used by {host}") } else { String::new() };
        format!("   pool: {name}\n     id: {id}\n  state: {state}{used}\n  disks: {there} of {all}\n")
    });
    Ok(say(texts.collect::<Vec<_>>().join("\n").trim_end())?)
}
