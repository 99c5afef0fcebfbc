//! What is printed of pools, in the form of `zpool` of version 2.

use std::fmt::Write as _;

use kiln_fs::core::target::label;
use kiln_fs::wire::pool::{Damaged, Event, Pool as Status, Scan};

use crate::table::human_size;

/// Damaged objects that are named unless all are asked for.
const NAMED: usize = 10;

/// The table of `kiln pool list`.
pub(super) fn table(pools: &[Status]) -> String {
    let width = pools.iter().map(|pool| pool.name.len()).max().unwrap_or(0).max(4);
    let mut text = format!("{:width$}   SIZE  ALLOC   FREE    CAP    HEALTH", "NAME");
    for pool in pools {
        let free = pool.size - pool.allocated;
        let cap = (pool.allocated * 100).checked_div(pool.size).unwrap_or(0);
        let sizes = [pool.size, pool.allocated, free].map(human_size);
        let _ = write!(
            text,
            "\n{:width$}  {:>5}  {:>5}  {:>5}  {:>4}%  {:>8}",
            pool.name, sizes[0], sizes[1], sizes[2], cap, pool.state
        );
    }
    text
}

/// The table of `kiln pool get`.
pub(super) fn properties(pools: &[Status], property: Option<&str>) -> String {
    let rows: Vec<[&str; 3]> = pools
        .iter()
        .flat_map(|pool| pool.properties.iter().map(|(name, value)| [pool.name.as_str(), name, value]))
        .filter(|[_, name, _]| property.is_none_or(|wanted| wanted == *name))
        .collect();
    let heads = ["NAME", "PROPERTY", "VALUE"];
    let width = |column: usize| {
        rows.iter().map(|row| row[column].len()).chain([heads[column].len()]).max().unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    let lines = std::iter::once(&heads).chain(&rows);
    let lines: Vec<String> =
        lines.map(|[name, property, value]| format!("{name:first$}  {property:second$}  {value}")).collect();
    lines.join("\n")
}

/// What happened, one event on each line.
pub(super) fn events(events: &[Event]) -> String {
    let mut text = format!("{:30} CLASS", "TIME");
    for event in events {
        let at = jiff::Timestamp::from_millisecond(event.at_ms as i64).unwrap_or_default();
        let at = at.to_zoned(jiff::tz::TimeZone::system()).strftime("%b %d %Y %H:%M:%S%.9f").to_string();
        let disk = event.disk.as_ref().map(|disk| format!(" {disk}")).unwrap_or_default();
        let _ = write!(text, "\n{at:30} {:16} {}{disk}: {}", event.class, event.pool, event.text);
    }
    text
}

/// How many records are damaged beyond repair, as far as that is known.
pub(super) fn damaged(pool: &Status) -> u64 {
    pool.scan.as_ref().map_or(0, |scan| scan.damaged).max(pool.damaged.len() as u64)
}

/// A pool, as `zpool status` tells it.
pub(super) fn describe(pool: &Status, verbose: bool) -> String {
    let mut text = format!("  pool: {}\n state: {}\n", pool.name, pool.state);
    if let Some(note) = &pool.note {
        let _ = writeln!(text, "status: {note}");
    }
    if let Some(scan) = &pool.scan {
        let _ = writeln!(text, "  scan: {}", describe_scan(scan));
    }
    let mut rows = vec![(0, pool.name.clone(), pool.state.clone(), [0; 3], "")];
    for vdev in &pool.vdevs {
        let note = |behind: bool, state: &str| if behind && state == "ONLINE" { "  (behind)" } else { "" };
        rows.push((1, vdev.name.clone(), vdev.state.clone(), vdev.errors, note(vdev.behind, &vdev.state)));
        for disk in &vdev.disks {
            rows.push((
                2,
                disk.path.clone(),
                disk.state.clone(),
                disk.errors,
                note(disk.behind, &disk.state),
            ));
        }
    }
    let spares = &pool.spares;
    let widths = rows.iter().map(|(depth, name, ..)| depth * 2 + name.len());
    let widths = widths.chain(spares.iter().map(|spare| 2 + spare.path.len()));
    let width = widths.max().unwrap_or(0).max(4);
    let _ = writeln!(text, "config:\n\n\t{:width$}  STATE     READ WRITE CKSUM", "NAME");
    for (depth, name, state, [read, write, checksum], note) in rows {
        let name = format!("{}{name}", "  ".repeat(depth));
        let _ = writeln!(text, "\t{name:width$}  {state:8} {read:>5} {write:>5} {checksum:>5}{note}");
    }
    if !spares.is_empty() {
        let _ = writeln!(text, "\tspares");
    }
    for spare in spares {
        let _ = writeln!(text, "\t{:width$}  {}", format!("  {}", spare.path), spare.state);
    }
    text + &describe_errors(pool, verbose)
}

fn describe_errors(pool: &Status, verbose: bool) -> String {
    let count = damaged(pool);
    if count == 0 {
        return "\nerrors: No known data errors\n".to_owned();
    }
    let shown = if verbose { pool.damaged.len() } else { NAMED.min(pool.damaged.len()) };
    let mut text = format!("\nerrors: {count} records are damaged beyond repair:\n\n");
    for damaged in &pool.damaged[..shown] {
        let _ = writeln!(text, "        {}", describe_damaged(damaged));
    }
    if count as usize > shown {
        let _ = writeln!(text, "        and {} more", count as usize - shown);
    }
    text
}

fn describe_damaged(damaged: &Damaged) -> String {
    let Damaged { dataset, object, offset, path } = damaged;
    let target = damaged.target();
    let label = match &target {
        Some((fs, role)) => Some(label(fs, *role)),
        None => dataset.clone(),
    };
    match (label, object, path) {
        (Some(label), Some(object), Some(path)) => {
            let fs = target.map(|(fs, _)| fs).unwrap_or_default();
            format!("{fs}:/{path} (object {object:#x} of {label} at {offset})")
        }
        (Some(label), Some(object), None) => format!("{label}: object {object:#x} at {offset}"),
        (Some(label), None, _) => format!("{label}: a node of its tree, and what is below"),
        (None, ..) => "what leads to the datasets".to_owned(),
    }
}

/// How far a scrub or a resilver is, or what came of it.
pub(super) fn describe_scan(scan: &Scan) -> String {
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
        "paused" => {
            let percent = (scan.looked_at * 100).checked_div(scan.of).unwrap_or(100);
            format!(
                "{what} paused, begun {}\n\t{} / {} scanned\n\t{} copies repaired, {percent}% done",
                date(scan.began),
                human_size(scan.looked_at),
                human_size(scan.of),
                scan.mended
            )
        }
        "stopped" => format!("{what} canceled on {}", date(scan.began + scan.secs)),
        why => format!("{what} failed after {took}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_status_reads_as_that_of_zpool() {
        let disk = |path: &str, errors| kiln_fs::wire::pool::Disk {
            path: path.into(),
            state: "ONLINE".into(),
            behind: false,
            errors,
            mended: 0,
        };
        let vdev = kiln_fs::wire::pool::Vdev {
            name: "mirror-0".into(),
            state: "ONLINE".into(),
            disks: vec![disk("/dev/sda", [0; 3]), disk("/dev/sdb", [0, 0, 3])],
            errors: [0; 3],
            behind: false,
            mended: 0,
        };
        let pool = Status {
            name: "tank".into(),
            state: "ONLINE".into(),
            note: None,
            size: 1 << 30,
            allocated: 1 << 20,
            scan: None,
            vdevs: vec![vdev],
            spares: vec![disk("/dev/sdz", [0; 3])],
            properties: BTreeMap::new(),
            damaged: Vec::new(),
        };
        let wanted = "  pool: tank\n state: ONLINE\nconfig:\n\n\
            \tNAME          STATE     READ WRITE CKSUM\n\
            \ttank          ONLINE       0     0     0\n\
            \t  mirror-0    ONLINE       0     0     0\n\
            \t    /dev/sda  ONLINE       0     0     0\n\
            \t    /dev/sdb  ONLINE       0     0     3\n\
            \tspares\n\
            \t  /dev/sdz    ONLINE\n\
            \nerrors: No known data errors\n";
        assert_eq!(describe(&pool, false), wanted);
    }

    #[test]
    fn what_is_damaged_is_named_by_its_path_where_that_is_known() {
        let damaged = |path: Option<&str>| {
            let dataset = Some("data-OST0001 of 00ff".to_owned());
            describe_damaged(&Damaged {
                dataset,
                object: Some(255),
                offset: 4096,
                path: path.map(str::to_owned),
            })
        };
        assert_eq!(damaged(Some("a/b")), "data:/a/b (object 0xff of data-OST0001 at 4096)");
        assert_eq!(damaged(None), "data-OST0001: object 0xff at 4096");
    }
}
