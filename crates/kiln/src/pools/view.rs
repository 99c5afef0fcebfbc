//! Pools as they are told to those who look after them.

use std::collections::BTreeMap;

use kiln_fs::wire::pool::{Damaged, Disk, Importable, Pool, Scan, Vdev};
use kiln_pool::format::{Label, PoolState, VdevKind};
use kiln_pool::pool::{Health, LeafStatus, PoolStatus, VdevStatus};

use super::properties;

fn word(health: Health) -> &'static str {
    match health {
        Health::Online => "ONLINE",
        Health::Degraded => "DEGRADED",
        Health::Offline => "OFFLINE",
        Health::Faulted => "FAULTED",
        Health::Unavailable => "UNAVAIL",
        Health::Suspended => "SUSPENDED",
    }
}

/// Damaged records that are named.
const NAMED_MAX: usize = 1000;

pub(super) fn pool(pool: &kiln_pool::pool::Pool, scan: Option<Scan>) -> Pool {
    let status = &pool.status();
    Pool {
        name: status.name.clone(),
        state: word(status.health).to_owned(),
        note: status.suspended.clone().or_else(|| note(status)),
        size: status.size_bytes,
        allocated: status.allocated_bytes,
        scan,
        vdevs: status.vdevs.iter().map(vdev).collect(),
        spares: status.spares.iter().map(spare).collect(),
        properties: properties::shown(status.properties),
        damaged: damaged(pool),
    }
}

fn spare((path, is_there): &(String, bool)) -> Disk {
    let state = if *is_there { "AVAIL" } else { word(Health::Unavailable) };
    Disk { path: path.clone(), state: state.to_owned(), behind: false, errors: [0; 3], mended: 0 }
}

fn damaged(pool: &kiln_pool::pool::Pool) -> Vec<Damaged> {
    let records = pool.damaged();
    // Only where there is something to name.
    let datasets: BTreeMap<_, _> =
        if records.is_empty() { BTreeMap::new() } else { pool.datasets().into_iter().collect() };
    let named = records.into_iter().take(NAMED_MAX).map(|record| Damaged {
        dataset: record.dataset.map(|id| datasets.get(&id).cloned().unwrap_or_default()),
        object: record.object,
        offset: record.offset,
        path: None,
    });
    named.collect()
}

/// A pool that could not be opened.
pub(super) fn failed(name: &str, why: &str) -> Pool {
    Pool {
        name: name.to_owned(),
        state: "UNAVAIL".to_owned(),
        note: Some(why.to_owned()),
        size: 0,
        allocated: 0,
        scan: None,
        vdevs: Vec::new(),
        spares: Vec::new(),
        properties: BTreeMap::new(),
        damaged: Vec::new(),
    }
}

fn note(status: &PoolStatus) -> Option<String> {
    let leaves = || status.vdevs.iter().flat_map(|vdev| &vdev.leaves);
    if leaves().any(|leaf| leaf.health == Health::Unavailable) {
        return Some(
            "one or more disks are not there; the pool goes on without them. Attach them, and start the node again or export and \
             import the pool: what they miss is brought up to date then"
                .to_owned(),
        );
    }
    if leaves().any(|leaf| leaf.health == Health::Faulted) {
        return Some(
            "one or more disks failed again and again, and are not used any more; the pool goes on without them. Put others in their \
             place with `kiln pool replace`"
                .to_owned(),
        );
    }
    if leaves().any(|leaf| leaf.health == Health::Offline) {
        return Some(
            "one or more disks were taken out of use; the pool goes on without them. Use them again with `kiln pool online`, or put \
             others in their place with `kiln pool replace`"
                .to_owned(),
        );
    }
    if leaves().any(|leaf| leaf.behind) {
        return Some(
            "one or more disks lack what was written while they were away; a resilver brings them up to date"
                .to_owned(),
        );
    }
    let failed = |leaf: &LeafStatus| leaf.counts != kiln_pool::vdev::Counts::default();
    leaves().any(failed).then(|| {
        "one or more disks have had errors, and what they had was mended from the others; if that goes on, the disk is failing".to_owned()
    })
}

fn vdev(vdev: &VdevStatus) -> Vdev {
    let kind = match vdev.kind {
        VdevKind::Mirror => "mirror".to_owned(),
        VdevKind::Raidz(parity) => format!("raidz{parity}"),
    };
    if let ([only], VdevKind::Mirror) = (&vdev.leaves[..], vdev.kind) {
        let Disk { path, state, behind, errors, mended } = disk(only);
        return Vdev { name: path, state, disks: Vec::new(), errors, behind, mended };
    }
    Vdev {
        name: format!("{kind}-{}", vdev.id.0),
        state: word(vdev.health).to_owned(),
        disks: vdev.leaves.iter().map(disk).collect(),
        errors: [0; 3],
        behind: false,
        mended: 0,
    }
}

fn disk(leaf: &LeafStatus) -> Disk {
    Disk {
        path: leaf.path.clone(),
        state: word(leaf.health).to_owned(),
        behind: leaf.behind,
        errors: [leaf.counts.read, leaf.counts.write, leaf.counts.checksum],
        mended: leaf.counts.mended,
    }
}

/// The pools that these labels are of.
pub(super) fn importable<'l>(labels: impl Iterator<Item = &'l Label>) -> Vec<Importable> {
    let mut newest: Vec<(&Label, u32)> = Vec::new();
    for label in labels {
        match newest.iter_mut().find(|(known, _)| known.pool == label.pool) {
            Some((known, count)) => {
                *count += 1;
                if known.txg < label.txg {
                    *known = label;
                }
            }
            None => newest.push((label, 1)),
        }
    }
    let pools = newest.into_iter().map(|(label, count)| Importable {
        name: label.name.clone(),
        id: format!("{:032x}", label.pool.0),
        state: match label.state {
            PoolState::Active => "active",
            PoolState::Exported => "exported",
            PoolState::Destroyed => "destroyed",
        }
        .to_owned(),
        host: label.host.clone(),
        disks: (count, label.vdevs.iter().map(|vdev| vdev.leaves.len() as u32).sum()),
    });
    pools.collect()
}
