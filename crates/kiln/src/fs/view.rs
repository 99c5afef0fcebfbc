//! A filesystem as it is: what the MGS has of it, and what its nodes say.

use kiln_fs::core::target::label;
use kiln_fs::core::{OstIndex, Role, Time, jobs};
use kiln_fs::mgs::{Filesystem as Row, Place};
use kiln_fs::wire::node::{DrainStatus, Kept, TargetState, TargetStatus};
use kiln_fs::wire::oss;

use crate::api::model::fs::{Client, Drain, Filesystem, JobCounter, JobStats, KeptFile, Space, Target};

/// What each node that was asked said; `None` of one that did not answer.
pub(super) type Told = Vec<(u32, Option<Vec<TargetStatus>>)>;

/// What is known of a target beside its row.
#[derive(Clone, Copy)]
enum Seen<'t> {
    /// Its node does not answer.
    Silent,
    /// Its node has not heard of it yet.
    Unheard,
    /// Its node says this.
    As(&'t TargetStatus),
}

impl<'t> Seen<'t> {
    fn of(told: &'t Told, name: &str, row: &Row, (role, place): (Role, &Place)) -> Seen<'t> {
        let node = told.iter().find(|(rank, _)| *rank == place.rank).and_then(|(_, told)| told.as_ref());
        let Some(node) = node else { return Seen::Silent };
        let found = node.iter().find(|seen| seen.fs == name && seen.id == row.id && seen.role == role);
        found.map_or(Seen::Unheard, Seen::As)
    }

    fn status(self) -> Option<&'t TargetStatus> {
        match self {
            Seen::As(status) => Some(status),
            Seen::Silent | Seen::Unheard => None,
        }
    }
}

/// The whole of it; `hosts` are the nodes by rank.
pub(super) fn filesystem(name: &str, row: &Row, told: &Told, hosts: &[String]) -> Filesystem {
    let seen: Vec<(Role, &Place, Seen<'_>)> =
        row.places().map(|(role, place)| (role, place, Seen::of(told, name, row, (role, place)))).collect();
    let statuses: Vec<&TargetStatus> = seen.iter().filter_map(|(_, _, seen)| seen.status()).collect();
    let clients = statuses
        .iter()
        .flat_map(|status| &status.clients)
        .map(|client| Client { host: client.host.clone(), session: format!("{:032x}", client.session.0) });
    let clients = clients.collect();
    let targets: Vec<Target> = seen
        .into_iter()
        .map(|(role, place, seen)| Target {
            draining: is_draining(row, role),
            drain: drain(row, role, &statuses),
            ..target(name, role, place, seen, hosts)
        })
        .collect();
    let ok = targets.iter().all(|target| target.state == Target::SERVING);
    let state = if ok { Filesystem::OK } else { Filesystem::DEGRADED };
    Filesystem {
        name: name.to_owned(),
        state: state.to_owned(),
        created: row.created.millis(),
        targets,
        clients,
    }
}

/// Why not all of a filesystem, or of what it was at a snapshot, is served, as its nodes say.
pub(super) fn failure(told: &Told, name: &str) -> Option<String> {
    let mut targets =
        told.iter().filter_map(|(_, told)| told.as_ref()).flatten().filter(|seen| seen.fs == name);
    targets.find_map(|seen| match &seen.state {
        TargetState::Failed(reason) => Some(format!("{}: {reason}", label(name, seen.role))),
        _ => None,
    })
}

fn is_draining(row: &Row, role: Role) -> bool {
    match role {
        Role::Ost(OstIndex(index)) => row.osts.get(usize::from(index)).is_some_and(|ost| ost.draining),
        Role::Mdt(_) => false,
    }
}

/// How far an OST is that drains; what the MDT's server says from before it heard of that does not count.
fn drain(row: &Row, role: Role, statuses: &[&TargetStatus]) -> Option<Drain> {
    let Role::Ost(index) = role else { return None };
    let told = statuses.iter().filter(|status| status.config_version >= row.version);
    let status = told.flat_map(|status| &status.drains).find(|drain| drain.ost == index)?;
    let state = match status {
        DrainStatus { drained: true, .. } => Drain::DRAINED,
        DrainStatus { counted: true, .. } => Drain::MOVING,
        _ => Drain::COUNTING,
    };
    let kept = |kept: &Kept| KeptFile { path: kept.path.clone(), reason: kept.why.clone() };
    is_draining(row, role).then(|| Drain {
        state: state.to_owned(),
        left_files: status.left_files,
        left_bytes: status.left_bytes,
        moved_files: status.moved_files,
        moved_bytes: status.moved_bytes,
        kept_files: status.kept_files,
        kept: status.kept.iter().map(kept).collect(),
        still_seconds: status.still_secs,
    })
}

fn target(name: &str, role: Role, place: &Place, seen: Seen<'_>, hosts: &[String]) -> Target {
    let (state, reason) = state(place, seen, hosts);
    let (kind, index) = match role {
        Role::Mdt(index) => ("mdt", index),
        Role::Ost(OstIndex(index)) => ("ost", index),
    };
    let status = seen.status();
    let dir = status.map(|status| status.dir.clone()).or_else(|| place.dir.clone());
    let host = hosts.get(place.rank as usize).cloned();
    Target {
        label: label(name, role),
        kind: kind.to_owned(),
        index,
        node: host.unwrap_or_else(|| format!("rank {}", place.rank)),
        rank: place.rank,
        dir: dir.map(|dir| dir.display().to_string()),
        state: state.to_owned(),
        reason,
        draining: false,
        drain: None,
        space: status.and_then(|status| status.space).map(space),
        requests: status.map_or(0, |status| status.requests),
        evictions: status.map_or(0, |status| status.evictions),
    }
}

/// What a target does, and why it does not what it should.
fn state(place: &Place, seen: Seen<'_>, hosts: &[String]) -> (&'static str, Option<String>) {
    match seen {
        Seen::Silent if place.rank as usize >= hosts.len() => {
            let why = format!("there is no node of rank {0}; start more than {0} nodes", place.rank);
            (Target::UNREACHABLE, Some(why))
        }
        Seen::Silent => {
            let why = "its node does not answer; `kiln status` shows the nodes";
            (Target::UNREACHABLE, Some(why.to_owned()))
        }
        Seen::Unheard => (Target::STARTING, None),
        Seen::As(status) => match &status.state {
            TargetState::Starting | TargetState::Removing => (Target::STARTING, None),
            TargetState::Serving => (Target::SERVING, None),
            TargetState::Failed(reason) => (Target::FAILED, Some(reason.clone())),
        },
    }
}

/// A job.
pub(super) fn job(stats: &jobs::JobStats) -> JobStats {
    let millis = |time: Time| time.secs.saturating_mul(1000) + i64::from(time.nanos / 1_000_000);
    let counter = |(operation, counter): (&jobs::Operation, &jobs::Counter)| {
        let jobs::Counter { samples, min, max, sum } = *counter;
        (operation.name().to_owned(), JobCounter { samples, min, max, sum })
    };
    JobStats {
        job_id: stats.job.clone(),
        start_time: millis(stats.since),
        snapshot_time: millis(stats.last),
        operations: stats.counts.0.iter().map(counter).collect(),
    }
}

fn space(space: oss::Space) -> Space {
    Space {
        total: space.total_bytes,
        used: space.total_bytes.saturating_sub(space.free_bytes),
        available: space.available_bytes,
        inodes_used: space.inodes.saturating_sub(space.free_inodes),
        inodes_free: space.free_inodes,
    }
}

#[cfg(test)]
mod tests {
    use kiln_fs::core::SessionId;
    use kiln_fs::mgs::OstRow;
    use kiln_fs::wire::mgs::FsId;
    use kiln_fs::wire::node::ClientStatus;
    use kiln_types::Timestamp;

    use super::*;

    fn row() -> Row {
        let ost = |rank, draining| OstRow { place: Place { rank, dir: None }, draining, made: true };
        Row {
            id: FsId(7),
            version: 1,
            created: Timestamp::EPOCH,
            mdt: Place { rank: 0, dir: None },
            mdt_made: true,
            osts: vec![ost(1, false), ost(2, true)],
        }
    }

    fn status(id: u128, role: Role, state: TargetState) -> TargetStatus {
        let clients = match role {
            Role::Mdt(_) => vec![ClientStatus { host: "h".to_owned(), session: SessionId(10) }],
            Role::Ost(_) => Vec::new(),
        };
        TargetStatus {
            fs: "a".to_owned(),
            id: FsId(id),
            role,
            dir: "/d".into(),
            state,
            space: None,
            clients,
            requests: 0,
            evictions: 0,
            config_version: 0,
            drains: Vec::new(),
        }
    }

    #[test]
    fn each_target_is_as_its_node_says() {
        let hosts = ["one", "two"].map(str::to_owned);
        let of_another = status(6, Role::Ost(OstIndex(0)), TargetState::Serving);
        let told = vec![
            (0, Some(vec![status(7, Role::Mdt(0), TargetState::Serving)])),
            (1, Some(vec![of_another])),
            (2, None),
        ];
        let seen = filesystem("a", &row(), &told, &hosts);
        let states: Vec<_> = seen.targets.iter().map(|target| target.state.as_str()).collect();
        assert_eq!(states, [Target::SERVING, Target::STARTING, Target::UNREACHABLE]);
        assert_eq!(seen.state, Filesystem::DEGRADED);
        assert_eq!(seen.clients[0].session, format!("{:032x}", 10));
        let last = &seen.targets[2];
        assert_eq!((last.node.as_str(), last.draining), ("rank 2", true));
        assert!(last.reason.as_deref().is_some_and(|why| why.contains("more than 2 nodes")));
    }

    #[test]
    fn it_is_well_when_all_are_served_and_a_failure_has_its_reason() {
        let hosts = ["one", "two", "three"].map(str::to_owned);
        let ost = |n, state| status(7, Role::Ost(OstIndex(n)), state);
        let told = |last| {
            vec![
                (0, Some(vec![status(7, Role::Mdt(0), TargetState::Serving)])),
                (1, Some(vec![ost(0, TargetState::Serving)])),
                (2, Some(vec![ost(1, last)])),
            ]
        };
        assert_eq!(filesystem("a", &row(), &told(TargetState::Serving), &hosts).state, Filesystem::OK);
        let failed = filesystem("a", &row(), &told(TargetState::Failed("no disk".to_owned())), &hosts);
        assert_eq!(failed.targets[2].reason.as_deref(), Some("no disk"));
        assert_eq!(
            failure(&told(TargetState::Failed("no disk".to_owned())), "a").as_deref(),
            Some("a-OST0001: no disk")
        );
        assert_eq!(failure(&told(TargetState::Serving), "a"), None);
    }
}
