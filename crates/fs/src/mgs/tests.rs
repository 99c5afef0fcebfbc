//! The machine on a store on the machine's own disk.

use std::sync::Arc;

use kiln_log::Volume;
use kiln_store::{Handle, Store, SubmitError};
use kiln_world::{RealClock, RealDisk};

use super::*;

struct Running {
    dir: tempfile::TempDir,
    volume: Volume,
    store: Store,
    mgs: Handle<MgsMachine>,
}

fn start_in(dir: tempfile::TempDir) -> Running {
    let disk = Arc::new(RealDisk::new(dir.path()).unwrap());
    let volume = Volume::start(disk, Arc::new(RealClock::new()));
    let store = Store::builder(volume.clone(), "store").machine(MgsMachine).open().unwrap();
    let mgs = store.handle();
    Running { dir, volume, store, mgs }
}

impl Running {
    fn start() -> Running {
        start_in(tempfile::tempdir().unwrap())
    }

    fn restart(self) -> Running {
        self.store.close().unwrap();
        self.volume.close();
        start_in(self.dir)
    }

    async fn tell(&self, command: Command) -> Result<Reply, Rejection> {
        match self.mgs.submit(command).await {
            Ok(reply) => Ok(reply),
            Err(SubmitError::Rejected(rejection)) => Err(rejection),
            Err(other) => panic!("{other}"),
        }
    }

    /// Tells it what it must do.
    async fn does(&self, command: Command) -> Reply {
        self.tell(command).await.expect("nothing is in its way")
    }

    async fn create(&self, name: &str, osts: &[Place]) -> Result<Reply, Rejection> {
        let id = FsId(u128::from(self.version()) + 1);
        self.tell(Command::Create { name: name.into(), id, mdt: on(0), osts: osts.to_vec() }).await
    }

    fn version(&self) -> u64 {
        version(&self.mgs.read()).unwrap()
    }

    /// What clients are told of a filesystem, or of a snapshot.
    fn told(&self, name: &str) -> Option<FsConfig> {
        config(&self.mgs.read(), name, address).expect("rows that can be read")
    }

    fn is_doomed(&self, name: &str) -> bool {
        is_doomed(&self.mgs.read(), name).expect("rows that can be read")
    }

    fn duty(&self, rank: u32) -> Duty {
        duty(&self.mgs.read(), rank, address).unwrap()
    }
}

fn on(rank: u32) -> Place {
    Place { rank, dir: None }
}

fn at(rank: u32, dir: &str) -> Place {
    Place { rank, dir: Some(dir.into()) }
}

fn address(rank: u32) -> Address {
    Address::Tcp(format!("node{rank}"))
}

fn labels<'t>(targets: impl IntoIterator<Item = &'t Target>) -> Vec<String> {
    targets.into_iter().map(|target| label(&target.fs, target.role)).collect()
}

/// The labels of what a duty serves.
fn served(duty: &Duty) -> Vec<String> {
    labels(duty.serve.iter().map(|assignment| &assignment.target))
}

#[tokio::test]
async fn a_filesystem_is_what_its_nodes_and_clients_are_told() {
    let running = Running::start();
    running.create("scratch", &[on(0), at(1, "/disks/1")]).await.unwrap();
    let running = running.restart();
    let row = filesystem(&running.mgs.read(), "scratch").unwrap().unwrap();
    let config = row.config("scratch", &[], address);
    assert_eq!((config.mdt_rank, &config.mdt), (0, &address(0)));
    let osts: Vec<_> = config.osts.iter().map(|ost| (ost.uuid.as_str(), ost.rank, ost.draining)).collect();
    assert_eq!(osts, [("scratch-OST0000_UUID", 0, false), ("scratch-OST0001_UUID", 1, false)]);
    assert_eq!(served(&running.duty(0)), ["scratch-MDT0000", "scratch-OST0000"]);
    let there = running.duty(1);
    assert_eq!(served(&there), ["scratch-OST0001"]);
    assert_eq!(there.serve[0].target.dir.as_deref(), Some("/disks/1".as_ref()));
    assert_eq!(running.duty(2).serve, []);
    let told: Vec<_> = (0..2).map(|rank| running.duty(rank).configs).collect();
    assert_eq!(told, [vec![config], vec![]]);
}

#[tokio::test]
async fn each_change_is_a_newer_version() {
    let running = Running::start();
    let mut versions = vec![running.version()];
    running.create("a", &[on(0)]).await.unwrap();
    versions.push(running.version());
    running.tell(Command::AddOst { name: "a".into(), place: on(1) }).await.unwrap();
    versions.push(running.version());
    let ost = OstIndex(0);
    let row = running.tell(Command::SetDraining { name: "a".into(), ost, draining: true }).await.unwrap();
    versions.push(row.unwrap().version);
    running.tell(Command::Destroy { name: "a".into() }).await.unwrap();
    versions.push(running.version());
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
}

#[tokio::test]
async fn a_destroyed_filesystem_keeps_its_name_until_it_is_removed() {
    let running = Running::start();
    running.create("a", &[on(0), on(1)]).await.unwrap();
    running.create("a-b", &[on(1)]).await.unwrap();
    running.tell(Command::Destroy { name: "a-b".into() }).await.unwrap();
    assert!(matches!(running.create("a-b", &[on(0)]).await, Err(Rejection::StillRemoved(..))));
    running.tell(Command::Destroy { name: "a".into() }).await.unwrap();
    assert!(matches!(running.create("a", &[on(0)]).await, Err(Rejection::StillRemoved(..))));
    assert_eq!(labels(&running.duty(1).remove), ["a-OST0001", "a-b-OST0000"]);
    let of_a = |target: &Target| target.fs == "a";
    let doomed = [running.duty(0).remove, running.duty(1).remove].concat();
    for target in doomed.into_iter().filter(of_a) {
        running.tell(Command::Removed { target }).await.unwrap();
    }
    running.create("a", &[on(0)]).await.unwrap();
    assert_eq!(served(&running.duty(0)), ["a-MDT0000", "a-OST0000"]);
}

#[tokio::test]
async fn a_late_word_of_removal_does_not_concern_the_next_of_the_name() {
    let running = Running::start();
    running.create("a", &[on(0)]).await.unwrap();
    running.tell(Command::Destroy { name: "a".into() }).await.unwrap();
    let first = running.duty(0).remove;
    for target in first.clone() {
        running.tell(Command::Removed { target }).await.unwrap();
    }
    running.create("a", &[on(0)]).await.unwrap();
    running.tell(Command::Destroy { name: "a".into() }).await.unwrap();
    for target in first {
        running.tell(Command::Removed { target }).await.unwrap();
    }
    assert_eq!(labels(&running.duty(0).remove), ["a-MDT0000", "a-OST0000"]);
}

#[tokio::test]
async fn a_target_that_was_made_is_not_begun_anew() {
    let running = Running::start();
    running.create("a", &[on(0)]).await.unwrap();
    let first = running.duty(0);
    assert!(first.serve.iter().all(|assignment| !assignment.made));
    let version = filesystem(&running.mgs.read(), "a").unwrap().unwrap().version;
    running.tell(Command::Made { target: first.serve[1].target.clone() }).await.unwrap();
    let made: Vec<bool> = running.duty(0).serve.iter().map(|assignment| assignment.made).collect();
    assert_eq!(made, [false, true]);
    assert!(running.version() > first.version);
    let row = filesystem(&running.mgs.read(), "a").unwrap().unwrap();
    assert_eq!(row.version, version, "clients need not look");
    let stranger = Target { id: FsId(99), ..first.serve[0].target.clone() };
    running.tell(Command::Made { target: stranger }).await.unwrap();
    assert!(!running.duty(0).serve[0].made);
}

fn snapshot(name: &str, snapshot: &str) -> Command {
    Command::AddSnapshot { name: name.into(), snapshot: snapshot.into() }
}

fn destroy_snapshot(name: &str, snapshot: &str) -> Command {
    Command::DestroySnapshot { name: name.into(), snapshot: snapshot.into() }
}

fn rollback(name: &str, snapshot: &str) -> Command {
    Command::BeginRollback { name: name.into(), snapshot: snapshot.into() }
}

#[tokio::test]
async fn a_snapshot_is_served_as_a_filesystem_of_its_own() {
    let running = Running::start();
    running.create("a", &[at(0, "/d"), on(1)]).await.expect("the name is free");
    let before = running.version();
    let row = running.does(snapshot("a", "noon")).await.expect("there is a filesystem");
    assert!(row.version > before, "clients look");
    // It is of the OSTs that there were.
    running.does(Command::AddOst { name: "a".into(), place: on(1) }).await;
    let running = running.restart();
    let config =
        config(&running.mgs.read(), "a", address).expect("rows that can be read").expect("it is there");
    assert_eq!(config.snapshots.len(), 1);
    let own = super::config(&running.mgs.read(), "a@noon", address)
        .expect("rows that can be read")
        .expect("it is there");
    assert_eq!((own.name.as_str(), own.id, own.osts.len()), ("a@noon", config.id, 2));
    assert_eq!(own, config.of_snapshot(&config.snapshots[0]));
    assert_eq!(running.told("a@dusk"), None);
    let duty = running.duty(0);
    assert_eq!(served(&duty), ["a-MDT0000", "a-OST0000", "a@noon-MDT0000", "a@noon-OST0000"]);
    assert_eq!(duty.serve[3].target.dir.as_deref(), Some("/d".as_ref()));
    assert!(duty.serve[3].made, "it is never begun anew");
    assert_eq!(duty.configs, [own, config]);
    assert_eq!(served(&running.duty(1)), ["a-OST0001", "a-OST0002", "a@noon-OST0001"]);
}

#[tokio::test]
async fn what_is_destroyed_goes_after_its_snapshots() {
    let running = Running::start();
    running.create("a", &[on(0)]).await.expect("the name is free");
    running.does(snapshot("a", "one")).await;
    running.does(snapshot("a", "two")).await;
    running.does(destroy_snapshot("a", "one")).await;
    assert_eq!(labels(&running.duty(0).remove), ["a@one-MDT0000", "a@one-OST0000"]);
    let again = running.tell(snapshot("a", "one")).await;
    assert!(matches!(again, Err(Rejection::StillRemoved(..))), "{again:?}");
    assert!(running.is_doomed("a@one"));
    assert!(!running.is_doomed("a@two"));
    running.does(Command::Destroy { name: "a".into() }).await;
    let mut doomed = running.duty(0).remove;
    let labels = labels(&doomed);
    assert_eq!(labels[4..], ["a-MDT0000", "a-OST0000"], "{labels:?}");
    // Until the last of all that is gone, the name is not free.
    let last = doomed.remove(0);
    for target in doomed {
        running.does(Command::Removed { target }).await;
    }
    assert!(matches!(running.create("a", &[on(0)]).await, Err(Rejection::StillRemoved(..))));
    assert!(running.is_doomed("a"));
    running.does(Command::Removed { target: last }).await;
    running.create("a", &[on(0)]).await.expect("the name is free");
    assert_eq!(snapshots(&running.mgs.read(), "a").expect("rows that can be read"), []);
}

#[tokio::test]
async fn a_filesystem_that_is_rolled_back_is_not_served_and_its_snapshots_are() {
    let running = Running::start();
    running.create("a", &[on(0)]).await.expect("the name is free");
    running.does(snapshot("a", "one")).await;
    running.does(snapshot("a", "two")).await;
    let older = running.tell(rollback("a", "one")).await;
    assert!(matches!(&older, Err(Rejection::NotNewest { later, .. }) if later == "two"), "{older:?}");
    assert_eq!(running.tell(rollback("a", "three")).await, Err(Rejection::NoSnapshot("a@three".into())));
    running.does(rollback("a", "two")).await;
    let duty = running.duty(0);
    assert!(served(&duty).iter().all(|label| label.starts_with("a@")), "{duty:?}");
    assert_eq!(served(&duty).len(), 4);
    for refused in [snapshot("a", "three"), destroy_snapshot("a", "two")] {
        assert_eq!(running.tell(refused).await, Err(Rejection::RollingBack("a".into(), "two".into())));
    }
    // Whoever began it may have died; it is done again.
    running.does(rollback("a", "two")).await;
    running.does(Command::EndRollback { name: "a".into() }).await;
    assert_eq!(served(&running.duty(0)).len(), 6);
    running.does(Command::AddOst { name: "a".into(), place: on(0) }).await;
    let added = running.tell(rollback("a", "two")).await;
    assert!(matches!(added, Err(Rejection::OstsAdded { .. })), "{added:?}");
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_is_refused() {
    let running = Running::start();
    assert_eq!(running.tell(snapshot("a", "x")).await, Err(Rejection::NoFilesystem("a".into())));
    running.create("a", &[on(0)]).await.expect("the name is free");
    let may = Command::MaySnapshot { name: "a".into(), snapshot: "x".into() };
    let version = running.version();
    running.does(may.clone()).await;
    assert_eq!(running.version(), version, "it was only asked");
    running.does(snapshot("a", "x")).await;
    for command in [may, snapshot("a", "x")] {
        assert_eq!(running.tell(command).await, Err(Rejection::SnapshotExists("a@x".into())));
    }
    assert_eq!(running.tell(snapshot("a", "..")).await, Err(Rejection::SnapshotName("..".into())));
    assert_eq!(running.tell(destroy_snapshot("a", "y")).await, Err(Rejection::NoSnapshot("a@y".into())));
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let running = Running::start();
    assert_eq!(running.create("a b", &[on(0)]).await, Err(Rejection::Name("a b".into())));
    assert_eq!(running.create("a", &[]).await, Err(Rejection::OstCount));
    assert_eq!(running.create("a", &[at(0, "d")]).await, Err(Rejection::RelativeDir("d".into())));
    running.create("a", &[at(0, "/d"), at(1, "/d")]).await.unwrap();
    assert_eq!(running.create("a", &[on(0)]).await, Err(Rejection::Exists("a".into())));
    let drain = |ost| Command::SetDraining { name: "a".into(), ost: OstIndex(ost), draining: true };
    running.tell(drain(0)).await.unwrap();
    assert_eq!(running.tell(drain(1)).await, Err(Rejection::LastOst("a-OST0001".into())));
    assert!(matches!(running.tell(drain(2)).await, Err(Rejection::NoOst { .. })));
    let destroyed = running.tell(Command::Destroy { name: "b".into() }).await;
    assert_eq!(destroyed, Err(Rejection::NoFilesystem("b".into())));
}

#[test]
fn golden_bytes_of_a_filesystem() {
    let row = Filesystem {
        id: FsId(1),
        version: 3,
        created: Timestamp::from_millis(1),
        mdt: on(0),
        mdt_made: true,
        osts: vec![OstRow { place: at(2, "/d"), draining: true, made: false }],
    };
    // id 1, version 3, zigzag 1000, rank 0 without a directory, made; one OST: rank 2 in "/d", draining, not made.
    let golden = [1, 3, 0xd0, 0x0f, 0, 0, 1, 1, 2, 1, 2, b'/', b'd', 1, 0];
    assert_eq!(postcard::to_stdvec(&row).unwrap(), golden);
}

#[test]
fn golden_bytes_of_a_snapshot() {
    let row =
        SnapshotRow { version: 3, created: Timestamp::from_millis(1), mdt: on(0), osts: vec![at(2, "/d")] };
    // version 3, zigzag 1000, rank 0 without a directory; one OST: rank 2 in "/d".
    assert_eq!(postcard::to_stdvec(&row).unwrap(), [3, 0xd0, 0x0f, 0, 0, 1, 2, 1, 2, b'/', b'd']);
    let rollback = Rollback { snapshot: "x".into() };
    assert_eq!(postcard::to_stdvec(&rollback).unwrap(), [1, b'x']);
}
