//! `kiln pool`; what it prints has the form of `zpool` of version 2.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, absolute};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use hyper::Method;
use kiln_fs::wire::pool::{Importable, NewVdev, Pool as Status, Reply, Request, Scan};

use super::{Usage, confirmed, exit, say};
use crate::api::client::{change, get};
use crate::cli::Pool;
use crate::paths::DataDir;
use crate::table::human_size;

/// How often `scrub --wait` looks.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Damaged objects that are named unless all are asked for.
const NAMED: usize = 10;

pub(super) async fn run(data: &DataDir, verb: Pool) -> anyhow::Result<ExitCode> {
    match verb {
        Pool::Create { name, vdevs, force, node } => {
            let vdevs = parse_vdevs(&vdevs)?;
            ask(data, Some(node), &Request::Create { name, vdevs, force }).await?;
        }
        Pool::List { name, json } => list(data, name.as_deref(), json).await?,
        Pool::Status { name, unhealthy, verbose, json } => {
            return status(data, name.as_deref(), unhealthy, verbose, json).await;
        }
        Pool::Scrub { name, stop, wait } => {
            ask(data, None, &Request::Scrub { name: name.clone(), stop }).await?;
            if wait {
                return wait_for_scrub(data, &name).await;
            }
        }
        Pool::Offline { name, disk } => {
            ask(data, None, &Request::Offline { name, disk: shown(&disk)? }).await?;
        }
        Pool::Online { name, disk, at } => {
            let at = at.as_deref().map(shown).transpose()?;
            ask(data, None, &Request::Online { name, disk: shown(&disk)?, at }).await?;
        }
        Pool::Replace { name, disk, new, force } => {
            let (disk, new) = (shown(&disk)?, shown(&new)?);
            ask(data, None, &Request::Replace { name, disk, new, force }).await?;
        }
        Pool::Export { name } => drop(ask(data, None, &Request::Export { name }).await?),
        Pool::Import { name, places, force, node } => {
            let places = places.iter().map(|place| shown(place)).collect::<anyhow::Result<_>>()?;
            match name {
                Some(name) => drop(ask(data, Some(node), &Request::Import { name, places, force }).await?),
                None => importable(data, node, places).await?,
            }
        }
        Pool::Destroy { name, yes } => {
            if !yes && !confirmed(&name, &format!("pool {name} with everything in it"))? {
                eprintln!("kiln: {name} stays as it is");
                return Ok(ExitCode::from(exit::FAILED));
            }
            ask(data, None, &Request::Destroy { name }).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A path as the node is told it: its working directory is another.
fn shown(path: &Path) -> anyhow::Result<String> {
    let path = absolute(path).with_context(|| format!("{} is no path", path.display()))?;
    Ok(path.display().to_string())
}

async fn ask(data: &DataDir, node: Option<u32>, request: &Request) -> anyhow::Result<Reply> {
    let path = node.map_or_else(|| "/api/pools".to_owned(), |node| format!("/api/pools?node={node}"));
    let answer = change(data, Method::POST, &path, request).await?;
    serde_json::from_slice(&answer).context("failed to read what the node answered")
}

/// Words of `zpool create`.
fn parse_vdevs(words: &[String]) -> anyhow::Result<Vec<NewVdev>> {
    let mut vdevs: Vec<NewVdev> = Vec::new();
    // Disks belong to the vdev that was named last, if one was.
    let mut named = false;
    for word in words {
        let parity = match word.as_str() {
            "mirror" => Some(0),
            "raidz" | "raidz1" => Some(1),
            "raidz2" => Some(2),
            "raidz3" => Some(3),
            "spare" | "log" | "cache" | "special" | "dedup" => {
                return Err(Usage(format!(
                    "{word}: pools have no such vdevs yet; they have disks, mirror and raidz1 to raidz3"
                ))
                .into());
            }
            _ => None,
        };
        if let Some(parity) = parity {
            vdevs.push(NewVdev { parity, disks: Vec::new() });
            named = true;
            continue;
        }
        let disk = shown(Path::new(word))?;
        match vdevs.last_mut().filter(|_| named) {
            Some(vdev) => vdev.disks.push(disk),
            None => vdevs.push(NewVdev { parity: 0, disks: vec![disk] }),
        }
    }
    match vdevs.iter().find(|vdev| vdev.disks.len() <= usize::from(vdev.parity)) {
        Some(NewVdev { parity: 0, .. }) => Err(Usage("mirror: name the disks behind it".to_owned()).into()),
        Some(vdev) => {
            let (parity, least) = (vdev.parity, vdev.parity + 1);
            Err(Usage(format!(
                "raidz{parity} needs at least {least} disks, and {} are named",
                vdev.disks.len()
            ))
            .into())
        }
        None => Ok(vdevs),
    }
}

async fn pools(data: &DataDir, name: Option<&str>) -> anyhow::Result<Vec<Status>> {
    let mut pools: Vec<Status> = get(data, "/api/pools").await?;
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
    if pools.is_empty() {
        return Ok(say("no pools available")?);
    }
    let width = pools.iter().map(|pool| pool.name.len()).max().unwrap_or(0).max(4);
    let mut text = format!("{:width$}   SIZE  ALLOC   FREE    CAP    HEALTH", "NAME");
    for pool in &pools {
        let free = pool.size - pool.allocated;
        let cap = (pool.allocated * 100).checked_div(pool.size).unwrap_or(0);
        let sizes = [pool.size, pool.allocated, free].map(human_size);
        let _ = write!(
            text,
            "\n{:width$}  {:>5}  {:>5}  {:>5}  {:>4}%  {:>8}",
            pool.name, sizes[0], sizes[1], sizes[2], cap, pool.state
        );
    }
    Ok(say(&text)?)
}

async fn status(
    data: &DataDir,
    name: Option<&str>,
    unhealthy: bool,
    verbose: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut pools = pools(data, name).await?;
    if unhealthy {
        pools.retain(|pool| pool.state != "ONLINE" || pool.note.is_some() || damaged(pool) > 0);
    }
    if json {
        say(&serde_json::to_string_pretty(&pools)?)?;
    } else if pools.is_empty() {
        say(if unhealthy { "all pools are healthy" } else { "no pools available" })?;
    } else {
        let texts: Vec<String> = pools.iter().map(|pool| describe(pool, verbose)).collect();
        let mut out = std::io::stdout().lock();
        out.write_all(texts.join("\n").as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn damaged(pool: &Status) -> u64 {
    pool.scan.as_ref().map_or(0, |scan| scan.damaged)
}

fn describe(pool: &Status, verbose: bool) -> String {
    let mut text = format!("  pool: {}\n state: {}\n", pool.name, pool.state);
    if let Some(note) = &pool.note {
        let _ = writeln!(text, "status: {note}");
    }
    if let Some(scan) = &pool.scan {
        let _ = writeln!(text, "  scan: {}", describe_scan(scan));
    }
    let mut rows = vec![(0, pool.name.clone(), pool.state.clone(), [0; 3], "")];
    for vdev in &pool.vdevs {
        rows.push((1, vdev.name.clone(), vdev.state.clone(), vdev.errors, ""));
        for disk in &vdev.disks {
            let behind = if disk.behind && disk.state == "ONLINE" { "  (behind)" } else { "" };
            rows.push((2, disk.path.clone(), disk.state.clone(), disk.errors, behind));
        }
    }
    let width = rows.iter().map(|(depth, name, ..)| depth * 2 + name.len()).max().unwrap_or(0).max(4);
    let _ = writeln!(text, "config:\n\n\t{:width$}  STATE     READ WRITE CKSUM", "NAME");
    for (depth, name, state, [read, write, checksum], note) in rows {
        let name = format!("{}{name}", "  ".repeat(depth));
        let _ = writeln!(text, "\t{name:width$}  {state:8} {read:>5} {write:>5} {checksum:>5}{note}");
    }
    text + &describe_errors(pool, verbose)
}

fn describe_errors(pool: &Status, verbose: bool) -> String {
    let count = damaged(pool);
    let Some(scan) = pool.scan.as_ref().filter(|_| count > 0) else {
        return "\nerrors: No known data errors\n".to_owned();
    };
    let shown = if verbose { scan.damaged_names.len() } else { NAMED.min(scan.damaged_names.len()) };
    let mut text = format!("\nerrors: {count} records are damaged beyond repair:\n\n");
    for name in &scan.damaged_names[..shown] {
        let _ = writeln!(text, "        {name}");
    }
    if count as usize > shown {
        let _ = writeln!(text, "        and {} more", count as usize - shown);
    }
    text
}

fn describe_scan(scan: &Scan) -> String {
    let what = if scan.resilver { "resilver" } else { "scrub" };
    let (hours, minutes, secs) = (scan.secs / 3600, scan.secs / 60 % 60, scan.secs % 60);
    let took = format!("{hours:02}:{minutes:02}:{secs:02}");
    let date = |at: u64| {
        let at = jiff::Timestamp::from_second(at as i64).unwrap_or_default();
        at.to_zoned(jiff::tz::TimeZone::system()).strftime("%a %b %e %H:%M:%S %Y").to_string()
    };
    match scan.state.as_str() {
        "running" => {
            let rate = scan.looked_at.checked_div(scan.secs).unwrap_or(scan.looked_at).max(1);
            let left = (scan.of - scan.looked_at.min(scan.of)) / rate;
            let percent = (scan.looked_at * 100).checked_div(scan.of).unwrap_or(100);
            format!(
                "{what} in progress since {}\n\t{} / {} scanned at {}/s\n\t{} copies repaired, {percent}% done, {:02}:{:02}:{:02} to go",
                date(scan.began),
                human_size(scan.looked_at),
                human_size(scan.of),
                human_size(rate),
                scan.mended,
                left / 3600,
                left / 60 % 60,
                left % 60
            )
        }
        "finished" => {
            let ended = date(scan.began + scan.secs);
            let did = if scan.resilver { "resilvered" } else { "scrub repaired" };
            format!("{did} {} copies in {took} with {} errors on {ended}", scan.mended, scan.damaged)
        }
        "stopped" => format!("{what} canceled on {}", date(scan.began + scan.secs)),
        why => format!("{what} failed after {took}: {why}"),
    }
}

async fn wait_for_scrub(data: &DataDir, name: &str) -> anyhow::Result<ExitCode> {
    loop {
        let pools = pools(data, Some(name)).await?;
        let scan = pools.first().and_then(|pool| pool.scan.as_ref());
        match scan {
            Some(scan) if scan.state == "running" => tokio::time::sleep(LOOK_AGAIN).await,
            Some(scan) => {
                say(&format!("{name}: {}", describe_scan(scan)))?;
                let right = scan.state == "finished" && scan.damaged == 0;
                return Ok(if right { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) });
            }
            None => anyhow::bail!("no scrub of {name} is known; the pool may have been given up meanwhile"),
        }
    }
}

async fn importable(data: &DataDir, node: u32, places: Vec<String>) -> anyhow::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn vdevs_are_named_as_for_zpool() {
        let parsed = parse_vdevs(&words("/a /b raidz2 /c /d /e mirror /f /g")).unwrap();
        let shape: Vec<(u8, usize)> = parsed.iter().map(|vdev| (vdev.parity, vdev.disks.len())).collect();
        assert_eq!(shape, [(0, 1), (0, 1), (2, 3), (0, 2)]);
        assert_eq!(parse_vdevs(&words("raidz /a /b")).unwrap()[0].parity, 1);
        for bad in ["raidz2 /a /b", "mirror", "spare /a", "mirror raidz1 /a /b"] {
            assert!(parse_vdevs(&words(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_status_reads_as_that_of_zpool() {
        let disk = |path: &str, errors| kiln_fs::wire::pool::Disk {
            path: path.into(),
            state: "ONLINE".into(),
            behind: false,
            errors,
        };
        let vdev = kiln_fs::wire::pool::Vdev {
            name: "mirror-0".into(),
            state: "ONLINE".into(),
            disks: vec![disk("/dev/sda", [0; 3]), disk("/dev/sdb", [0, 0, 3])],
            errors: [0; 3],
        };
        let pool = Status {
            name: "tank".into(),
            state: "ONLINE".into(),
            note: None,
            size: 1 << 30,
            allocated: 1 << 20,
            scan: None,
            vdevs: vec![vdev],
        };
        let wanted = "  pool: tank\n state: ONLINE\nconfig:\n\n\
            \tNAME          STATE     READ WRITE CKSUM\n\
            \ttank          ONLINE       0     0     0\n\
            \t  mirror-0    ONLINE       0     0     0\n\
            \t    /dev/sda  ONLINE       0     0     0\n\
            \t    /dev/sdb  ONLINE       0     0     3\n\
            \nerrors: No known data errors\n";
        assert_eq!(describe(&pool, false), wanted);
    }
}
