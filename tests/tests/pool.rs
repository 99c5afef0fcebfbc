//! Pools, as an administrator meets them: made, filled, damaged, mended, moved and given up.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use kiln_tests::filesystem::{Filesystem, can_mount};
use kiln_tests::{Cluster, wait_until};
use serde_json::Value;

const DISK_BYTES: u64 = 128 << 20;
const SECTOR_BYTES: usize = 4096;
/// What a disk has before its records.
const LABEL_SECTORS: u64 = 128;
/// Where records are as long as the pool is not full.
const ROTTEN_BYTES: u64 = 64 << 20;

/// Files to make a pool of, in a directory of that name.
fn disks(cluster: &Cluster, dir: &str, count: usize) -> Vec<String> {
    let dir = cluster.dir().join(dir);
    fs::create_dir_all(&dir).expect("a directory for disks");
    let made = (0..count).map(|index| {
        let path = dir.join(format!("disk{index}"));
        File::create(&path).and_then(|file| file.set_len(DISK_BYTES)).expect("a sparse file");
        text(&path)
    });
    made.collect()
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of the test's own").to_owned()
}

fn pool(cluster: &Cluster, arguments: &[&str]) -> kiln_tests::Output {
    cluster.kiln(&[&["pool"], arguments].concat())
}

fn create(cluster: &Cluster, kind: &str, disks: &[String]) {
    let disks: Vec<&str> = disks.iter().map(String::as_str).collect();
    let _ = pool(cluster, &[&["create", "tank", kind], &disks[..]].concat()).ok();
}

/// The pool's status.
fn status(cluster: &Cluster) -> Value {
    pool(cluster, &["status", "tank", "--json"]).json()[0].clone()
}

/// Waits until a node that was killed has its pool again.
fn wait_until_back(cluster: &Cluster) {
    wait_until("the node is back", || pool(cluster, &["list"]).stdout.contains("tank").then_some(()));
}

/// Waits until all disks have everything.
fn wait_until_whole(cluster: &Cluster) {
    wait_until("the resilver is done", || {
        let status = status(cluster);
        (status["state"] == "ONLINE" && status["scan"]["state"] != "running").then_some(())
    });
}

#[test]
fn a_pool_is_made_moved_and_given_up() {
    let cluster = Cluster::start(1);
    pool(&cluster, &["list"]).ok().says("no pools available");
    let disks = disks(&cluster, "disks", 4);
    create(&cluster, "raidz1", &disks);
    pool(&cluster, &["list"]).ok().says("ONLINE");
    pool(&cluster, &["status"]).ok().says("raidz1-0").says("No known data errors");
    pool(&cluster, &["status", "-x"]).ok().says("all pools are healthy");
    // What cannot be says why, and changes nothing.
    pool(&cluster, &["create", "tank", "mirror", &disks[0], &disks[1]]).code(1).says("is there already");
    pool(&cluster, &["create", "other", "mirror", &disks[0], &disks[1]]).code(1).says("in use by another");
    pool(&cluster, &["create", "raidz9", &disks[0]]).code(1).says("no name for a pool");
    pool(&cluster, &["create", "other", "raidz2", &disks[0], &disks[1]]).code(2).says("at least 3 disks");
    pool(&cluster, &["create", "other", "/dev/null"]).code(1).says("neither a file, a directory nor");
    pool(&cluster, &["scrub", "other"]).code(1).says("no such pool");
    // It moves: other paths, found by the labels.
    let _ = pool(&cluster, &["export", "tank"]).ok();
    pool(&cluster, &["list"]).ok().says("no pools available");
    let moved = cluster.dir().join("moved");
    fs::rename(cluster.dir().join("disks"), &moved).expect("nobody has them");
    pool(&cluster, &["import", "-d", &text(&moved)]).ok().says("exported").says("4 of 4");
    pool(&cluster, &["import", "nothing", "-d", &text(&moved)]).code(1).says("none of the disks");
    let _ = pool(&cluster, &["import", "tank", "-d", &text(&moved)]).ok();
    pool(&cluster, &["history", "tank"]).ok().says("kiln pool export tank").says("kiln pool import tank");
    assert_eq!(status(&cluster)["vdevs"][0]["disks"][0]["path"], text(&moved.join("disk0")));
    pool(&cluster, &["scrub", "tank", "--wait"]).ok().says("with 0 errors");
    let _ = pool(&cluster, &["destroy", "tank", "--yes"]).ok();
    pool(&cluster, &["import", "tank", "-d", &text(&moved)]).code(1).says("was destroyed");
}

/// Overwrites sectors of a disk behind the pool's back, but for its labels.
fn damage(disk: &str, sectors: impl Iterator<Item = u64>) {
    let file = OpenOptions::new().write(true).open(disk).expect("a disk");
    for sector in sectors {
        file.write_all_at(&[0xa5; SECTOR_BYTES], sector * SECTOR_BYTES as u64).expect("it is a file");
    }
}

fn contents(index: usize) -> Vec<u8> {
    (0..200_000 + index).map(|at| (at * 31 + index * 7) as u8).collect()
}

/// Writes files, each durable.
fn write_files(dir: &Path, files: std::ops::Range<usize>) {
    for index in files {
        let mut file = File::create(dir.join(format!("f{index}"))).expect("a new file");
        file.write_all(&contents(index)).and_then(|()| file.sync_all()).expect("there is room");
    }
}

fn check_files(dir: &Path, files: std::ops::Range<usize>) {
    for index in files {
        let read = fs::read(dir.join(format!("f{index}"))).expect("it is there");
        assert!(read == contents(index), "file {index}");
    }
}

/// Overwrites random sectors of a disk until it is dropped.
struct Rot {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Rot {
    fn of(disk: &str) -> Rot {
        let (disk, stop) = (disk.to_owned(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut state, mut damaged) = (1_u64, 0);
            while !stopped.load(Ordering::Relaxed) {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                damage(
                    &disk,
                    std::iter::once(LABEL_SECTORS + (state >> 33) % (ROTTEN_BYTES / SECTOR_BYTES as u64)),
                );
                damaged += 1;
                // A pace, so that the machine is left to what is tested.
                std::thread::sleep(Duration::from_micros(500));
            }
            damaged
        });
        Rot { stop, thread: Some(thread) }
    }

    /// How many sectors were overwritten.
    fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(0, |thread| thread.join().expect("it only writes"))
    }
}

#[test]
fn fio_verifies_what_it_wrote_while_a_disk_rots() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::start(1);
    let disks = disks(&cluster, "disks", 4);
    create(&cluster, "raidz1", &disks);
    let filesystem = Filesystem::create(&cluster, "scratch", &["--ost", "tank", "--ost", "tank"]).mounted(2);
    let rot = Rot::of(&disks[2]);
    let _ = filesystem.script("fio_verify.py", &[]);
    let damaged = rot.stop();
    let errors = status(&cluster)["vdevs"][0]["disks"][2]["errors"][2].as_u64();
    println!("{damaged} sectors were overwritten, {errors:?} were met by reads");
    pool(&cluster, &["scrub", "tank", "--wait"]).ok().says("with 0 errors");
    pool(&cluster, &["scrub", "tank", "--wait"]).ok().says("repaired 0 copies").says("with 0 errors");
    assert!(damaged > 1000 && errors > Some(0), "the test damages something");
}

#[test]
fn a_filesystem_on_a_pool_outlives_rot_kills_and_a_lost_disk() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::start(1);
    let disks = disks(&cluster, "disks", 4);
    create(&cluster, "raidz1", &disks);
    {
        let all_on_it = ["--mdt", "tank", "--ost", "tank", "--ost", "tank"];
        let mut filesystem = Filesystem::create(&cluster, "scratch", &all_on_it);
        let first = filesystem.mount();
        write_files(&first, 0..20);
        pool(&cluster, &["export", "tank"]).code(1).says("in use");
        let history = pool(&cluster, &["history", "tank"]).ok().stdout;
        assert!(!history.contains("export"), "{history}");
        // All of it is on the disks, and one rots.
        pool(&cluster, &["scrub", "tank", "--wait"]).ok().says("repaired 0 copies").says("with 0 errors");
        damage(&disks[1], (200..12_000).step_by(3));
        // A mount that has nothing of the files in its memory.
        let second = filesystem.mount();
        check_files(&second, 0..20);
        assert!(status(&cluster)["vdevs"][0]["disks"][1]["errors"][2].as_u64() > Some(0));
        pool(&cluster, &["events"])
            .ok()
            .says("what was read is not what was written, at byte")
            .says("written again from the other disks, at byte");
        pool(&cluster, &["scrub", "tank", "--wait"]).ok().says("with 0 errors");
        pool(&cluster, &["scrub", "tank", "--wait"]).ok().says("repaired 0 copies");
        // The node is killed, twice.
        for round in 0..2 {
            write_files(&second, 20 + round * 10..30 + round * 10);
            let name = |index: usize| second.join(format!("name-{round}-{index}"));
            (0..100).for_each(|index| drop(File::create(name(index)).expect("a new file")));
            // What another mount has seen is at the OST, synced or not.
            let long: Vec<u8> = (0..3).flat_map(|_| contents(100_000 * round)).collect();
            fs::write(second.join(format!("long-{round}")), &long).expect("there is room");
            assert!(fs::read(first.join(format!("long-{round}"))).expect("it is there") == long);
            cluster.kill_node(0);
            // Names that were made are there, synced or not: a call that was completed is not lost with a process.
            (0..100).for_each(|index| assert!(name(index).exists(), "{round}: {index}"));
            wait_until_back(&cluster);
            let fresh = filesystem.mount();
            assert!(fs::read(fresh.join(format!("long-{round}"))).expect("it is there") == long, "{round}");
        }
        let third = filesystem.mount();
        check_files(&third, 0..40);
    }
    // A disk is away when the instance starts.
    cluster.down();
    let away = format!("{}.away", disks[2]);
    fs::rename(&disks[2], &away).expect("nobody has it");
    cluster.up();
    wait_until("the pool is there", || (status(&cluster)["state"] == "DEGRADED").then_some(()));
    pool(&cluster, &["status", "-x"]).ok().says("UNAVAIL").says("are not there");
    let dir = cluster.dir().join("again");
    fs::create_dir(&dir).expect("a directory to mount on");
    let _ = cluster.kiln(&["fs", "mount", "scratch", &text(&dir)]).ok();
    check_files(&dir, 0..40);
    write_files(&dir, 40..50);
    pool(&cluster, &["online", "tank", &disks[2], &disks[0]]).code(1).says("in use by another process");
    let _ = pool(&cluster, &["online", "tank", &disks[2], &away]).ok();
    wait_until_whole(&cluster);
    // Another is replaced by a new one.
    let new = cluster.dir().join("disks/new");
    File::create(&new).and_then(|file| file.set_len(DISK_BYTES)).expect("a sparse file");
    let _ = pool(&cluster, &["offline", "tank", &disks[0]]).ok();
    pool(&cluster, &["status", "-x"]).ok().says("OFFLINE").says("kiln pool online");
    pool(&cluster, &["offline", "tank", &disks[3]]).code(1).says("needs it");
    let _ = pool(&cluster, &["replace", "tank", &disks[0], &text(&new)]).ok();
    wait_until_whole(&cluster);
    pool(&cluster, &["scrub", "tank", "--wait"]).ok().says("repaired 0 copies").says("with 0 errors");
    check_files(&dir, 0..50);
    let _ = cluster.kiln(&["fs", "umount", &text(&dir)]).ok();
    let _ = cluster.kiln(&["fs", "destroy", "scratch", "--yes"]).ok();
    let _ = pool(&cluster, &["export", "tank"]).ok();
}

#[test]
fn a_pool_grows_and_spares_step_in() {
    let mut cluster = Cluster::start(1);
    let disks = disks(&cluster, "disks", 6);
    let said = ["create", "-o", "compression=lz4", "tank", &disks[0], "spare", &disks[5]];
    let _ = pool(&cluster, &said).ok();
    pool(&cluster, &["status"]).ok().says("spares").says("AVAIL");
    pool(&cluster, &["get", "all", "tank"]).ok().says("compression  lz4");
    pool(&cluster, &["set", "compression=gzip", "tank"]).code(1).says("off, on, lz4 and zstd");
    pool(&cluster, &["set", "compression", "tank"]).code(2).says("NAME=VALUE");
    let _ = pool(&cluster, &["set", "checksum=blake3", "tank"]).ok();
    pool(&cluster, &["get", "checksum", "tank"]).ok().says("blake3");
    // A single disk becomes a mirror, and another vdev comes beside it.
    let _ = pool(&cluster, &["attach", "tank", &disks[0], &disks[1]]).ok();
    wait_until_whole(&cluster);
    pool(&cluster, &["add", "tank", &disks[2]]).code(1).says("can do without");
    let _ = pool(&cluster, &["add", "tank", "mirror", &disks[2], &disks[3]]).ok();
    pool(&cluster, &["status"]).ok().says("mirror-0").says("mirror-1");
    let _ = pool(&cluster, &["attach", "tank", &disks[2], &disks[4]]).ok();
    wait_until_whole(&cluster);
    let _ = pool(&cluster, &["detach", "tank", &disks[2]]).ok();
    // A disk is gone when the instance starts, and the spare has its place.
    cluster.down();
    fs::remove_file(&disks[3]).expect("nobody has it");
    cluster.up();
    wait_until("the spare has stepped in", || {
        let status = status(&cluster);
        (status["spares"] == Value::Array(Vec::new())).then_some(())
    });
    wait_until_whole(&cluster);
    pool(&cluster, &["scrub", "tank", "--wait"]).ok().says("with 0 errors");
    pool(&cluster, &["events"]).ok().says("vdev_spare").says("scrub_finish").says("resilver_finish");
    let history = pool(&cluster, &["history", "tank"]);
    history.says("History for 'tank'").says("kiln pool create -o compression=lz4 tank");
    history.says(&format!("kiln pool detach tank {}", disks[2]));
    wait_until("the topic has it", || {
        let topic = cluster.kiln(&["topic", "read", "kiln.pool"]).stdout;
        (topic.contains("vdev_spare") && topic.contains("pool_create")).then_some(())
    });
    // A directory is a disk as well.
    let dir = cluster.dir().join("a directory");
    fs::create_dir(&dir).expect("it is new");
    let _ = pool(&cluster, &["add", "tank", "spare", &text(&dir)]).ok();
    pool(&cluster, &["status"]).ok().says("kiln.disk");
    let _ = pool(&cluster, &["remove", "tank", &text(&dir.join("kiln.disk"))]).ok();
    let _ = pool(&cluster, &["destroy", "tank", "--yes"]).ok();
}

#[test]
fn damaged_files_are_named_and_a_scrub_rests_when_it_is_told_to() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::start(1);
    let disks = disks(&cluster, "disks", 4);
    create(&cluster, "raidz1", &disks);
    // The names are elsewhere, and whole.
    let names = self::disks(&cluster, "names", 2);
    let _ = pool(&cluster, &["create", "names", "mirror", &names[0], &names[1]]).ok();
    let mut filesystem = Filesystem::create(&cluster, "scratch", &["--mdt", "names", "--ost", "tank"]);
    let first = filesystem.mount();
    fs::create_dir(first.join("deep")).expect("it is new");
    write_files(&first.join("deep"), 0..40);
    let _ = cluster.kiln(&["fs", "snapshot", "scratch@before"]).ok();
    let _ = pool(&cluster, &["scrub", "tank", "--rate", "100KiB"]).ok();
    let _ = pool(&cluster, &["scrub", "tank", "--pause"]).ok();
    wait_until("it rests", || (status(&cluster)["scan"]["state"] == "paused").then_some(()));
    pool(&cluster, &["status"]).ok().says("scrub paused");
    // One disk is away, and another has rotted in places: nothing can mend that.
    let _ = pool(&cluster, &["scrub", "tank", "--stop"]).ok();
    let _ = pool(&cluster, &["offline", "tank", &disks[0]]).ok();
    damage(&disks[1], (200..2000).step_by(40));
    pool(&cluster, &["scrub", "tank", "--wait"]).code(1).says("errors");
    let said = pool(&cluster, &["status", "-v", "tank"]);
    said.says("damaged beyond repair").says("scratch:/deep/f").says("scratch@before:/deep/f");
    let named: Vec<usize> =
        (0..40).filter(|index| said.stdout.contains(&format!("scratch:/deep/f{index} "))).collect();
    // Exactly those give errors, and the others what was written.
    let second = filesystem.mount();
    for index in 0..40 {
        match fs::read(second.join(format!("deep/f{index}"))) {
            Ok(read) => assert!(read == contents(index) && !named.contains(&index), "file {index}"),
            Err(error) => assert!(named.contains(&index), "file {index}: {error}"),
        }
    }
    pool(&cluster, &["events"]).ok().says("data").says("damaged beyond repair");
    assert!(!named.is_empty() && named.len() < 40, "{named:?}");
}

#[test]
fn a_scrub_goes_on_after_its_node_was_killed() {
    let mut cluster = Cluster::start(1);
    let disks = disks(&cluster, "disks", 2);
    create(&cluster, "mirror", &disks);
    let _ = cluster.kiln(&["fs", "create", "scratch", "--mdt", "tank", "--ost", "tank"]).ok();
    // So slow that it does not end by itself.
    let _ = pool(&cluster, &["scrub", "tank", "--rate", "1KiB"]).ok();
    let began = wait_until("it has begun", || status(&cluster)["scan"]["began"].as_u64());
    let is_back = |cluster: &Cluster, state: &str| {
        wait_until_back(cluster);
        wait_until("the scrub is as it was", || {
            let scan = &status(cluster)["scan"];
            (scan["state"] == state && scan["began"] == began).then_some(())
        });
    };
    cluster.kill_node(0);
    is_back(&cluster, "running");
    let _ = pool(&cluster, &["scrub", "tank", "--pause"]).ok();
    is_back(&cluster, "paused");
    cluster.kill_node(0);
    is_back(&cluster, "paused");
    cluster.down();
    cluster.up();
    is_back(&cluster, "paused");
    pool(&cluster, &["scrub", "tank", "--rate", "1GiB", "--wait"]).ok().says("with 0 errors");
    cluster.kill_node(0);
    is_back(&cluster, "finished");
}

#[test]
fn the_logs_of_an_instance_move_to_a_pool_and_stay_there() {
    let mut cluster = Cluster::start(1);
    let disks = disks(&cluster, "disks", 2);
    create(&cluster, "mirror", &disks);
    let write = |cluster: &Cluster, range: std::ops::Range<usize>| {
        let lines: Vec<String> = range.map(|index| format!("line {index}\n")).collect();
        let mut command = cluster.command("kiln");
        command.args(["topic", "write", "kept"]).stdin(std::process::Stdio::piped());
        let mut child = command.spawn().expect("kiln starts");
        child.stdin.take().expect("it is piped").write_all(lines.concat().as_bytes()).expect("it reads");
        assert!(child.wait().expect("it ends").success());
    };
    let check = |cluster: &Cluster, count: usize| {
        let read = cluster.kiln(&["topic", "read", "kept"]).ok().stdout;
        let wanted: Vec<String> = (0..count).map(|index| format!("line {index}")).collect();
        assert_eq!(read.lines().collect::<Vec<_>>(), wanted);
    };
    let _ = cluster.kiln(&["topic", "create", "kept"]).ok();
    write(&cluster, 0..500);
    cluster.down();
    cluster.set_variable("KILN_LOG_POOL", "tank");
    cluster.up();
    check(&cluster, 500);
    assert!(!cluster.data().join("kafka/kept-0").exists(), "it is in the pool");
    write(&cluster, 500..600);
    cluster.restart_leader();
    check(&cluster, 600);
    pool(&cluster, &["destroy", "tank", "--yes"]).code(1).says("the logs of the instance");
    // A disk rots, and nothing is lost.
    cluster.down();
    damage(&disks[0], 200..4000);
    cluster.up();
    check(&cluster, 600);
    pool(&cluster, &["scrub", "tank", "--wait"]).ok().says("with 0 errors");
    cluster.down();
    let refused = kiln_tests::run(cluster.command("kiln").args(["up"]).env("KILN_LOG_POOL", ""));
    refused.code(1).says("set log.pool = \"tank\" again");
    // Back to where they were, and the pool is free.
    cluster.set_variable("KILN_LOG_POOL", ".");
    cluster.up();
    check(&cluster, 600);
    assert!(cluster.data().join("kafka/kept-0").exists(), "it is in the data directory");
    write(&cluster, 600..610);
    cluster.restart_leader();
    check(&cluster, 610);
    let _ = pool(&cluster, &["destroy", "tank", "--yes"]).ok();
}
