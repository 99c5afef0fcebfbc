//! Snapshots of filesystems on pools: read, gone back to, destroyed, and what they cost.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kiln_tests::filesystem::{Filesystem, can_mount};
use kiln_tests::{Cluster, wait_until};
use serde_json::Value;

const DISK_BYTES: u64 = 256 << 20;

/// A pool of that name on the node of a rank, a mirror.
fn create_pool(cluster: &Cluster, name: &str, rank: u32) {
    let disks: Vec<String> = (0..2).map(|disk| disk_of(cluster, &format!("{name}{disk}"))).collect();
    let rank = rank.to_string();
    let said = ["pool", "create", "--node", &rank, name, "mirror", &disks[0], &disks[1]];
    let _ = cluster.kiln(&said).ok();
}

fn disk_of(cluster: &Cluster, name: &str) -> String {
    let path = cluster.dir().join(name);
    File::create(&path).and_then(|file| file.set_len(DISK_BYTES)).expect("a sparse file");
    path.to_str().expect("a path of the test's own").to_owned()
}

fn fs(cluster: &Cluster, arguments: &[&str]) -> kiln_tests::Output {
    cluster.kiln(&[&["fs"], arguments].concat())
}

/// The names of the snapshots, and what each has alone.
fn snapshots(cluster: &Cluster) -> Vec<(String, u64)> {
    let listed = fs(cluster, &["snapshots", "scratch", "--json"]).json();
    let snapshot = |row: &Value| {
        (row["name"].as_str().expect("a name").to_owned(), row["used"].as_u64().expect("its nodes answer"))
    };
    listed.as_array().expect("a list").iter().map(snapshot).collect()
}

fn contents(seed: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 + seed * 7 + at / 4096) as u8).collect()
}

fn unmount(cluster: &Cluster, dir: &Path) {
    let _ = fs(cluster, &["umount", dir.to_str().expect("a path of the test's own")]).ok();
}

#[test]
fn a_snapshot_is_read_gone_back_to_and_destroyed() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::start(1);
    create_pool(&cluster, "tank", 0);
    let mut filesystem =
        Filesystem::create(&cluster, "scratch", &["--mdt", "tank", "--ost", "tank", "--ost", "tank"]);
    let (first, second) = (filesystem.mount(), filesystem.mount());
    let then = |dir: &Path| dir.join(".snapshots/before");
    fs::create_dir(first.join("dir")).expect("it is new");
    fs::write(first.join("dir/small"), b"one").expect("there is room");
    fs::write(first.join("large"), contents(1, 20_000_000)).expect("there is room");
    std::os::unix::fs::symlink("dir/small", first.join("link")).expect("it is new");
    assert_eq!(names(&first.join(".snapshots")), [""; 0]);
    // What is closed is in it, though nothing was synced.
    fs(&cluster, &["snapshot", "scratch@before"]).ok().says(".snapshots/before");
    fs(&cluster, &["snapshot", "scratch@before"]).code(1).says("there is a snapshot scratch@before already");
    fs(&cluster, &["snapshot", "scratch@a/b"]).code(1).says("cannot be a snapshot's name");
    fs(&cluster, &["snapshot", "scratch"]).code(2).says("as in scratch@monday");
    fs(&cluster, &["snapshot", "other@x"]).code(1).says("there is no filesystem other");
    fs::write(first.join("dir/small"), b"two").expect("there is room");
    fs::write(first.join("large"), contents(2, 10_000_000)).expect("there is room");
    fs::remove_file(first.join("link")).expect("it is there");
    // Both mounts see it, with all that was there.
    for dir in [&first, &second] {
        wait_until("the mount has heard of it", || then(dir).exists().then_some(()));
        assert_eq!(names(&then(dir)), ["dir", "large", "link"]);
        assert_eq!(fs::read(then(dir).join("link")).expect("it leads there"), b"one");
        assert!(fs::read(then(dir).join("large")).expect("it is there") == contents(1, 20_000_000));
        assert_eq!(fs::read(dir.join("dir/small")).expect("it is there"), b"two");
        // A listing of the root does not show it.
        assert_eq!(names(dir), ["dir", "large"]);
        let error = File::create(then(dir).join("new")).expect_err("nothing changes it");
        assert_eq!(error.raw_os_error(), Some(nix::libc::EROFS));
        let error = fs::rename(dir.join("large"), then(dir).join("x")).expect_err("it is another filesystem");
        assert_eq!(error.raw_os_error(), Some(nix::libc::EXDEV));
        let error = fs::remove_dir(dir.join(".snapshots")).expect_err("it is no directory of the MDT's");
        assert_eq!(error.raw_os_error(), Some(nix::libc::EPERM));
        fs::copy(then(dir).join("large"), dir.join("copy")).expect("there is room");
        assert!(fs::read(dir.join("copy")).expect("it is there") == contents(1, 20_000_000));
        fs::remove_file(dir.join("copy")).expect("it is there");
    }
    let used = snapshots(&cluster);
    assert!(used.len() == 1 && used[0].0 == "scratch@before" && used[0].1 > 19_000_000, "{used:?}");
    // It can be mounted alone, and outlives the node and the instance.
    let alone = cluster.dir().join("alone");
    fs::create_dir(&alone).expect("it is new");
    let mount_alone = |cluster: &Cluster| {
        let dir = alone.to_str().expect("a path of the test's own");
        fs(cluster, &["mount", "scratch@before", dir]).ok().says("is mounted");
    };
    mount_alone(&cluster);
    cluster.kill_node(0);
    assert_eq!(fs::read(alone.join("dir/small")).expect("it is there"), b"one");
    assert_eq!(fs::read(then(&second).join("dir/small")).expect("it is there"), b"one");
    unmount(&cluster, &alone);
    fs(&cluster, &["rollback", "scratch@before", "--yes"]).code(1).says("is mounted on");
    unmount(&cluster, &first);
    unmount(&cluster, &second);
    drop(filesystem);
    cluster.down();
    cluster.up();
    fs(&cluster, &["snapshot", "scratch@after"]).ok().says("is made");
    fs(&cluster, &["rollback", "scratch@before", "--yes"]).code(1).says("not the newest").says("after");
    fs(&cluster, &["destroy", "scratch@after", "--yes"]).ok().says("destroyed");
    fs(&cluster, &["rollback", "scratch@before", "--yes"]).ok().says("is what it was at scratch@before");
    let third = cluster.dir().join("third");
    fs::create_dir(&third).expect("it is new");
    let _ = fs(&cluster, &["mount", "scratch", third.to_str().expect("a path of the test's own")]).ok();
    assert_eq!(names(&third), ["dir", "large", "link"]);
    assert!(fs::read(third.join("large")).expect("it is there") == contents(1, 20_000_000));
    fs::write(third.join("dir/small"), b"three").expect("it goes on");
    assert_eq!(fs::read(then(&third).join("dir/small")).expect("it is there"), b"one");
    // One that is destroyed while a program looks at it.
    let open = File::open(then(&third).join("large")).expect("it is there");
    let _ = fs(&cluster, &["destroy", "scratch@before", "--yes"]).ok();
    wait_until("the mount has heard of it", || (!then(&third).exists()).then_some(()));
    drop(open);
    assert_eq!(snapshots(&cluster), []);
    fs(&cluster, &["destroy", "scratch@before", "--yes"]).code(1).says("there is no snapshot scratch@before");
    let _ = fs(&cluster, &["snapshot", "scratch@last"]).ok();
    unmount(&cluster, &third);
    fs(&cluster, &["destroy", "scratch", "--yes"]).code(1).says("has snapshots").says("last");
    fs(&cluster, &["destroy", "scratch", "--yes", "--force"]).ok().says("destroyed");
    cluster.kiln(&["pool", "scrub", "tank", "--wait"]).ok().says("with 0 errors");
    let _ = cluster.kiln(&["pool", "destroy", "tank", "--yes"]).ok();
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<String> =
        entries.map(|entry| name(entry).to_str().expect("a name of the test's own").to_owned()).collect();
    names.sort();
    names
}

/// A filesystem on three nodes with a pool each.
fn over_three_pools(cluster: &Cluster) -> Filesystem<'_> {
    for rank in 0..3 {
        create_pool(cluster, &format!("pool{rank}"), rank);
    }
    Filesystem::create(cluster, "scratch", &["--mdt", "pool0", "--ost", "pool1", "--ost", "pool2"])
}

/// Three nodes with a pool each: while programs make files, each snapshot has a beginning of what each of them did, with every byte.
#[test]
fn a_snapshot_over_several_pools_is_of_one_moment() {
    const WRITERS: usize = 2;
    if !can_mount() {
        return;
    }
    let cluster = Cluster::start(3);
    let mut filesystem = over_three_pools(&cluster);
    let mounts: Vec<PathBuf> = (0..WRITERS).map(|_| filesystem.mount()).collect();
    let stop = AtomicBool::new(false);
    let done: Vec<AtomicUsize> = (0..WRITERS).map(|_| AtomicUsize::new(0)).collect();
    // What each writer had finished when a snapshot was asked for.
    let mut finished: Vec<Vec<usize>> = Vec::new();
    std::thread::scope(|scope| {
        for (writer, dir) in mounts.iter().enumerate() {
            let (stop, done) = (&stop, &done[writer]);
            scope.spawn(move || {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    fs::write(dir.join(format!("w{writer}-{number}")), contents(number, 100_000 + number))
                        .expect("there is room");
                    done.store(number + 1, Ordering::SeqCst);
                }
            });
        }
        for snapshot in 0..3 {
            let enough = |done: &AtomicUsize| done.load(Ordering::SeqCst) > 20 * (snapshot + 1);
            wait_until("the writers have done something", || done.iter().all(enough).then_some(()));
            finished.push(done.iter().map(|done| done.load(Ordering::SeqCst)).collect());
            let _ = fs(&cluster, &["snapshot", &format!("scratch@s{snapshot}")]).ok();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let reader = filesystem.mount();
    for (snapshot, finished) in finished.into_iter().enumerate() {
        let dir = reader.join(format!(".snapshots/s{snapshot}"));
        for (writer, finished) in finished.into_iter().enumerate() {
            let file = |number: usize| dir.join(format!("w{writer}-{number}"));
            for number in 0..finished {
                let read = fs::read(file(number)).expect("what was closed is there");
                assert!(read == contents(number, 100_000 + number), "{}", file(number).display());
            }
            // Of what came later there is a beginning.
            let names = names(&dir);
            let later = names.iter().filter(|name| name.starts_with(&format!("w{writer}-"))).count();
            assert!((0..later).all(|number| file(number).exists()), "{names:?}");
        }
    }
    fs(&cluster, &["add-ost", "scratch", "0"]).ok().says("is served");
    fs(&cluster, &["snapshot", "scratch@s3"]).code(1).says("only what stands on a pool can have snapshots");
}

/// Nodes are killed while a snapshot is made: it is there as a whole, or not at all, and can be made then.
#[test]
fn a_snapshot_is_whole_or_not_there_when_a_node_is_killed() {
    const ROUNDS: usize = 9;
    if !can_mount() {
        return;
    }
    let cluster = Cluster::start(3);
    let mut filesystem = over_three_pools(&cluster);
    let dir = filesystem.mount();
    let file = |round: usize| format!("file{round}");
    let snapshot = |round: usize| format!("scratch@s{round}");
    let make = |round: usize| fs(&cluster, &["snapshot", &snapshot(round)]);
    let mut made_despite = 0;
    for round in 0..ROUNDS {
        fs::write(dir.join(file(round)), contents(round, 300_000 + round)).expect("there is room");
        std::thread::scope(|scope| {
            let making = scope.spawn(|| make(round));
            // Not a wait: each time it hits another step, and each node at several. What must hold holds at any moment.
            std::thread::sleep(Duration::from_millis(8 * round as u64));
            cluster.kill_node(round % 3);
            let _ = making.join().expect("it ends with an error at worst");
        });
        let listed = wait_until("the nodes are back", || {
            let listed = fs(&cluster, &["snapshots", "scratch", "--json"]);
            listed.stdout.starts_with('[').then_some(listed.stdout)
        });
        if listed.contains(&format!("\"{}\"", snapshot(round))) {
            made_despite += 1;
        } else {
            wait_until("it can be made", || make(round).stdout.contains("is made").then_some(()));
        }
        let kept = dir.join(format!(".snapshots/s{round}"));
        wait_until("the mount has heard of it", || kept.exists().then_some(()));
        assert_eq!(names(&kept), (0..=round).map(file).collect::<Vec<_>>());
        for round in 0..=round {
            assert!(
                fs::read(kept.join(file(round))).expect("it is there") == contents(round, 300_000 + round)
            );
        }
    }
    println!("{made_despite} of {ROUNDS} snapshots were made though a node was killed meanwhile");
    for round in 0..ROUNDS {
        let _ = fs(&cluster, &["destroy", &snapshot(round), "--yes"]).ok();
    }
    for rank in 0..3 {
        cluster.kiln(&["pool", "scrub", &format!("pool{rank}"), "--wait"]).ok().says("with 0 errors");
    }
    for round in 0..ROUNDS {
        let now = fs::read(dir.join(file(round))).expect("it is there");
        assert!(now == contents(round, 300_000 + round), "file {round}");
    }
}
