//! What was done to a pool by commands. It lies in the pool itself, in a dataset of its own, and goes where the pool goes.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use kiln_fs::wire::pool::{NewVdev, Request, ScrubAct};
use kiln_pool::pool::{DatasetId, Pool, PoolError};

use super::own;

/// Its dataset.
pub(super) const DATASET: &str = ".history";
/// Lines lie in objects of this length, in bytes; there are two of them at most.
const PART_BYTES: u64 = 256 << 10;

/// Writes down what was done, durably.
pub(super) fn note(pool: &Pool, command: &str) -> Result<(), PoolError> {
    let dataset = own::dataset(pool, DATASET)?;
    let mut part = pool.objects(dataset, 0, usize::MAX)?.last().copied().unwrap_or(0);
    let mut end = pool.stat(dataset, part)?.unwrap_or_default().len;
    if end >= PART_BYTES {
        if let Some(old) = part.checked_sub(1) {
            pool.destroy(dataset, old)?;
        }
        (part, end) = (part + 1, 0);
    }
    let at = Timestamp::now().to_zoned(TimeZone::system()).strftime("%Y-%m-%d.%H:%M:%S");
    pool.write(dataset, part, end, format!("{at} {command}\n").as_bytes())?;
    pool.commit()
}

/// The lines, the oldest first.
pub(super) fn lines(pool: &Pool) -> Result<Vec<String>, PoolError> {
    let Some(dataset) = pool.dataset(DATASET) else { return Ok(Vec::new()) };
    let mut lines = Vec::new();
    for part in pool.objects(dataset, 0, usize::MAX)? {
        lines.extend(text(pool, dataset, part)?.lines().map(str::to_owned));
    }
    Ok(lines)
}

fn text(pool: &Pool, dataset: DatasetId, part: u64) -> Result<String, PoolError> {
    let len = pool.stat(dataset, part)?.unwrap_or_default().len.min(2 * PART_BYTES);
    let mut bytes = vec![0; len as usize];
    let read = pool.read(dataset, part, 0, &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
}

/// A request as a command that asks for it, with the pool's name; `None` for one that changes nothing.
pub(super) fn command(request: &Request) -> Option<(&str, String)> {
    let forced = |force: bool| if force { "-f " } else { "" };
    Some(match request {
        Request::Create { name, vdevs, spares, properties, force } => {
            let options: Vec<String> =
                properties.iter().map(|(name, value)| format!("-o {name}={value}")).collect();
            let words = [&options[..], std::slice::from_ref(name), &disks(vdevs, spares)].concat();
            (name, format!("kiln pool create {}{}", forced(*force), words.join(" ")))
        }
        Request::Add { name, vdevs, spares, force } => {
            (name, format!("kiln pool add {}{name} {}", forced(*force), disks(vdevs, spares).join(" ")))
        }
        Request::Set { name, property, value } => (name, format!("kiln pool set {property}={value} {name}")),
        Request::Import { name, .. } => (name, format!("kiln pool import {name}")),
        Request::Export { name } => (name, format!("kiln pool export {name}")),
        Request::Scrub { name, act, .. } => {
            let act = match act {
                ScrubAct::Start => "",
                ScrubAct::Pause => "-p ",
                ScrubAct::Stop => "-s ",
            };
            (name, format!("kiln pool scrub {act}{name}"))
        }
        Request::Attach { name, disk, new, force } => {
            (name, format!("kiln pool attach {}{name} {disk} {new}", forced(*force)))
        }
        Request::Detach { name, disk } => (name, format!("kiln pool detach {name} {disk}")),
        Request::Remove { name, disk } => (name, format!("kiln pool remove {name} {disk}")),
        Request::Offline { name, disk } => (name, format!("kiln pool offline {name} {disk}")),
        Request::Online { name, disk, at } => {
            let at = at.as_ref().map(|at| format!(" {at}")).unwrap_or_default();
            (name, format!("kiln pool online {name} {disk}{at}"))
        }
        Request::Replace { name, disk, new, force } => {
            (name, format!("kiln pool replace {}{name} {disk} {new}", forced(*force)))
        }
        Request::Destroy { .. }
        | Request::Status
        | Request::Importable { .. }
        | Request::Events
        | Request::History { .. } => return None,
    })
}

/// The words that name them.
fn disks(vdevs: &[NewVdev], spares: &[String]) -> Vec<String> {
    let mut words = Vec::new();
    for vdev in vdevs {
        match (vdev.parity, vdev.disks.len()) {
            (0, 1) => {}
            (0, _) => words.push("mirror".to_owned()),
            (parity, _) => words.push(format!("raidz{parity}")),
        }
        words.extend(vdev.disks.iter().cloned());
    }
    if !spares.is_empty() {
        words.push("spare".to_owned());
        words.extend(spares.iter().cloned());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_as_the_command_that_asked_for_it() {
        let paths = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let vdevs = vec![
            NewVdev { parity: 0, disks: paths(&["/a"]) },
            NewVdev { parity: 2, disks: paths(&["/b", "/c", "/d"]) },
        ];
        let create = Request::Create {
            name: "tank".into(),
            vdevs,
            spares: paths(&["/e"]),
            properties: [("compression".into(), "lz4".into())].into(),
            force: true,
        };
        let text = "kiln pool create -f -o compression=lz4 tank /a raidz2 /b /c /d spare /e";
        assert_eq!(command(&create), Some(("tank", text.to_owned())));
        assert_eq!(command(&Request::Status), None);
    }
}
