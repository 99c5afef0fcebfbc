//! What happens to pools, as events: found by looking at them again and again, and by what is asked of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_fs::wire::pool::{Disk, Event, Pool};
use kiln_pool::vdev::{Incident, Incidents, Trouble};

use super::locked;

/// Events of the node that are kept in memory, and those that wait for their topic; older ones are forgotten.
const KEPT_MAX: usize = 4096;

/// The events of a node since its start.
#[derive(Default)]
pub(super) struct Events {
    node: String,
    kept: Mutex<VecDeque<Event>>,
    unsent: Mutex<VecDeque<Event>>,
}

impl Events {
    pub(super) fn of(node: &str) -> Events {
        Events { node: node.to_owned(), ..Events::default() }
    }

    pub(super) fn add(&self, pool: &str, class: &str, disk: Option<&str>, text: String) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = Event {
            at_ms: at.as_millis() as u64,
            node: self.node.clone(),
            pool: pool.to_owned(),
            class: class.to_owned(),
            disk: disk.map(str::to_owned),
            text,
        };
        tracing::info!(pool, class, disk, text = event.text, "pool event");
        for events in [&self.kept, &self.unsent] {
            let mut events = locked(events);
            if events.len() == KEPT_MAX {
                events.pop_front();
            }
            events.push_back(event.clone());
        }
    }

    pub(super) fn all(&self) -> Vec<Event> {
        locked(&self.kept).iter().cloned().collect()
    }

    /// Hands on what was not handed on yet; it stays when that fails.
    pub(super) fn send(&self, sink: &dyn Fn(Vec<Event>) -> Result<(), String>) {
        let unsent: Vec<Event> = std::mem::take(&mut *locked(&self.unsent)).into();
        if unsent.is_empty() {
            return;
        }
        if let Err(why) = sink(unsent.clone()) {
            tracing::debug!(why, "the events of pools are not in their topic yet");
            let mut later = locked(&self.unsent);
            for event in unsent.into_iter().rev() {
                if later.len() < KEPT_MAX {
                    later.push_front(event);
                }
            }
        }
    }

    /// Tells what went wrong on a disk of a pool.
    pub(super) fn tell(&self, pool: &str, disk: &str, incidents: &Incidents) {
        for (class, text) in told(incidents) {
            self.add(pool, class, Some(disk), text);
        }
    }

    /// Tells how pools are otherwise than they were.
    pub(super) fn compare(&self, before: &[Pool], now: &[Pool]) {
        for now in now {
            let Some(before) = before.iter().find(|pool| pool.name == now.name) else { continue };
            for (class, disk, text) in changes(before, now) {
                self.add(&now.name, class, disk.as_deref(), text);
            }
        }
    }
}

/// Classes and texts of what went wrong on a disk.
fn told(incidents: &Incidents) -> Vec<(&'static str, String)> {
    let Incidents { first, more } = incidents;
    let one = |incident: &Incident| {
        let (class, text) = match incident.what {
            Trouble::Read => ("io", "a read failed"),
            Trouble::Write => ("io", "a write failed"),
            Trouble::Flush => ("io", "a flush failed: nothing on it is known to be durable"),
            Trouble::Checksum => ("checksum", "what was read is not what was written"),
            Trouble::Mended => ("repair", "written again from the other disks"),
        };
        (class, incident.at.map_or_else(|| text.to_owned(), |at| format!("{text}, at byte {at}")))
    };
    let more = [
        ("io", more.read, "reads failed"),
        ("io", more.write, "writes or flushes failed"),
        ("checksum", more.checksum, "parts of records were not what was written"),
        ("repair", more.mended, "parts of records were written again"),
    ];
    let more = more.into_iter().filter(|(_, count, _)| *count > 0);
    first
        .iter()
        .map(one)
        .chain(more.map(|(class, count, what)| (class, format!("{count} more {what}"))))
        .collect()
}

type Change = (&'static str, Option<String>, String);

/// How a pool is otherwise than it was.
fn changes(before: &Pool, now: &Pool) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    if before.state != now.state {
        changes.push(("statechange", None, format!("{} -> {}", before.state, now.state)));
    }
    let old: BTreeMap<String, Disk> = before.all_disks().map(|disk| (disk.path.clone(), disk)).collect();
    for disk in now.all_disks() {
        let Some(was) = old.get(&disk.path) else { continue };
        if was.state != disk.state {
            let text = format!("{} -> {}", was.state, disk.state);
            changes.push(("statechange", Some(disk.path.clone()), text));
        }
    }
    for damaged in now.damaged.iter().filter(|damaged| !before.damaged.contains(damaged)) {
        let dataset = damaged.dataset.as_deref().unwrap_or("what leads to the datasets");
        let object = damaged.object.map(|object| format!(", object {object:#x} at {}", damaged.offset));
        let text = format!("damaged beyond repair: {dataset}{}", object.unwrap_or_default());
        changes.push(("data", None, text));
    }
    changes
}

#[cfg(test)]
mod tests {
    use kiln_fs::wire::pool::{Damaged, Vdev};
    use kiln_pool::vdev::Counts;

    use super::*;

    fn disk(path: &str) -> Disk {
        Disk { path: path.into(), state: "ONLINE".into(), behind: false, errors: [0; 3], mended: 0 }
    }

    fn pool() -> Pool {
        Pool {
            name: "tank".into(),
            state: "ONLINE".into(),
            note: None,
            size: 1 << 30,
            allocated: 1 << 20,
            scan: None,
            vdevs: vec![Vdev {
                name: "mirror-0".into(),
                state: "ONLINE".into(),
                disks: vec![disk("/a"), disk("/b")],
                errors: [0; 3],
                behind: false,
                mended: 0,
            }],
            spares: Vec::new(),
            properties: BTreeMap::new(),
            damaged: Vec::new(),
        }
    }

    #[test]
    fn what_is_otherwise_is_told_once() {
        let before = pool();
        assert_eq!(changes(&before, &before), []);
        let mut now = pool();
        now.state = "DEGRADED".into();
        now.vdevs[0].disks[0].state = "FAULTED".into();
        now.damaged =
            vec![Damaged { dataset: Some("s-OST0000".into()), object: Some(16), offset: 4096, path: None }];
        let found: Vec<String> = changes(&before, &now)
            .into_iter()
            .map(|(class, disk, text)| format!("{class} {}: {text}", disk.unwrap_or_default()))
            .collect();
        assert_eq!(
            found,
            [
                "statechange : ONLINE -> DEGRADED",
                "statechange /a: ONLINE -> FAULTED",
                "data : damaged beyond repair: s-OST0000, object 0x10 at 4096",
            ]
        );
        assert_eq!(changes(&now, &now), []);
    }

    #[test]
    fn each_incident_is_told_and_many_are_counted() {
        let first = vec![
            Incident { what: Trouble::Checksum, at: Some(8192) },
            Incident { what: Trouble::Mended, at: Some(8192) },
            Incident { what: Trouble::Flush, at: None },
        ];
        let more = Counts { read: 2, ..Counts::default() };
        let told = told(&Incidents { first, more });
        let told: Vec<String> = told.into_iter().map(|(class, text)| format!("{class}: {text}")).collect();
        assert_eq!(
            told,
            [
                "checksum: what was read is not what was written, at byte 8192",
                "repair: written again from the other disks, at byte 8192",
                "io: a flush failed: nothing on it is known to be durable",
                "io: 2 more reads failed",
            ]
        );
    }
}
