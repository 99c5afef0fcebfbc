//! The changelog of a filesystem: a topic that any Kafka client reads, and that misses nothing, whatever is killed.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use kiln_tests::filesystem::{Filesystem, can_mount};
use kiln_tests::{Cluster, wait_until};
use serde_json::Value;

const TOPIC: &str = "kiln.fs.scratch.changelog";
/// The name of what is made last.
const LAST: &str = "last";

/// What kafka-python reads up to a directory that is made for that: records are in the order of the changes.
fn read(cluster: &Cluster, mount: &Path) -> Vec<Value> {
    std::fs::create_dir(mount.join(LAST)).expect("a directory");
    let arguments = [cluster.address("kafka"), TOPIC, LAST];
    let output = cluster.python("fs/read_changelog.py", &arguments).ok();
    output.stdout.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
}

/// The records by their index, each once; a repeat must say the same.
fn by_index(records: Vec<Value>) -> BTreeMap<u64, Value> {
    let mut all = BTreeMap::new();
    for record in records {
        let index = record["index"].as_u64().expect("an index");
        let before = all.insert(index, record.clone());
        assert!(before.is_none_or(|before| before == record), "index {index} has two records");
    }
    let indices: Vec<u64> = all.keys().copied().collect();
    assert_eq!(indices, (1..=all.len() as u64).collect::<Vec<_>>(), "no index is missing");
    all
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[test]
fn kafka_clients_and_lfs_read_what_changed() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::start(2);
    // The MDT is not on the leader, where the topic is.
    let fs = Filesystem::create(&cluster, "scratch", &["--mdt", "silicon2"]).mounted(1);
    let dir = fs.mounts()[0].clone();
    std::fs::create_dir(dir.join("d")).expect("a directory");
    std::fs::write(dir.join("d/a"), "text").expect("a file");
    std::fs::rename(dir.join("d/a"), dir.join("b")).expect("another name");
    std::fs::hard_link(dir.join("b"), dir.join("c")).expect("a link");
    std::os::unix::fs::symlink("b", dir.join("s")).expect("a symbolic link");
    std::fs::set_permissions(dir.join("b"), PermissionsExt::from_mode(0o600)).expect("a mode");
    std::fs::remove_file(dir.join("c")).expect("it goes");
    std::fs::remove_file(dir.join("b")).expect("it goes");
    std::fs::remove_dir(dir.join("d")).expect("it goes");
    let lfs = |words: &[&str]| kiln_tests::run(cluster.command("lfs").args(words)).ok().stdout;
    // A mount tells of closed files when it finds the time.
    wait_until("the close is recorded", || {
        lfs(&["changelog", "scratch-MDT0000"]).contains(" 11CLOSE ").then_some(())
    });

    let records = by_index(read(&cluster, &dir));
    let kinds: Vec<String> = records.values().map(|record| text(&record["type"])).collect();
    let names = |kind: &str| {
        let of_kind = records.values().filter(|record| record["type"] == kind);
        of_kind.map(|record| text(&record["name"])).collect::<Vec<_>>()
    };
    // Closes aside, they are in the order in which it was done.
    let changes: Vec<&str> = kinds.iter().map(String::as_str).filter(|kind| *kind != "11CLOSE").collect();
    let expected = [
        "02MKDIR", "01CREAT", "08RENME", "03HLINK", "04SLINK", "14SATTR", "06UNLNK", "06UNLNK", "07RMDIR",
        "02MKDIR",
    ];
    assert_eq!(changes, expected);
    assert_eq!(names("06UNLNK"), ["c", "b"]);
    let rename = records.values().find(|record| record["type"] == "08RENME").expect("the rename");
    assert_eq!((text(&rename["source_name"]), text(&rename["name"])), ("a".to_owned(), "b".to_owned()));
    assert_eq!(rename["uid"], nix::unistd::geteuid().as_raw());

    let all = lfs(&["changelog", "scratch-MDT0000"]);
    assert_eq!(all.lines().count(), records.len(), "{all}");
    let first = all.lines().next().expect("a line");
    assert!(first.starts_with("1 02MKDIR ") && first.ends_with("p=[0x200000007:0x1:0x0] d"), "{first}");
    assert_eq!(lfs(&["changelog", "scratch-MDT0000", "2", "3"]).lines().count(), 2);
    let _ = lfs(&["changelog_clear", "scratch-MDT0000", "backup", "4"]);
    let rest = lfs(&["changelog", "--user", "backup", "scratch-MDT0000"]);
    assert!(rest.starts_with("5 "), "{rest}");
    let _ = lfs(&["changelog_clear", "scratch-MDT0000", "backup", "0"]);
    assert_eq!(lfs(&["changelog", "--user", "backup", "scratch-MDT0000"]), "");
}

/// Makes files, one after the other, until it is told to stop; their names.
fn make_files(dir: PathBuf, stop: Arc<AtomicBool>, count: Arc<AtomicUsize>) -> JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let mut made = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let name = format!("f{}", made.len());
            std::fs::write(dir.join(&name), "").expect("a file is made, however long it takes");
            made.push(name);
            count.store(made.len(), Ordering::SeqCst);
        }
        made
    })
}

#[test]
fn kill_9_of_the_leader_loses_no_record() {
    /// Files that are made between two kills, at least.
    const BETWEEN: usize = 200;
    if !can_mount() {
        return;
    }
    let cluster = Cluster::start(1);
    let fs = Filesystem::create(&cluster, "scratch", &[]).mounted(1);
    let dir = &fs.mounts()[0];
    let stop = Arc::new(AtomicBool::new(false));
    let made = Arc::new(AtomicUsize::new(0));
    let files = make_files(dir.clone(), Arc::clone(&stop), Arc::clone(&made));
    for round in 1..=3 {
        let enough = || made.load(Ordering::SeqCst) >= round * BETWEEN;
        wait_until("files are made", || enough().then_some(()));
        cluster.kill_node(0);
    }
    let before = made.load(Ordering::SeqCst);
    wait_until("files are made again", || (made.load(Ordering::SeqCst) > before + 1).then_some(()));
    stop.store(true, Ordering::SeqCst);
    let made = files.join().expect("every file was made");
    wait_until("the leader is back", || cluster.status()["ready"].as_bool().filter(|ready| *ready));
    let records = by_index(read(&cluster, dir));
    let created = records.values().filter(|record| record["type"] == "01CREAT");
    let created: Vec<String> = created.map(|record| text(&record["name"])).collect();
    assert_eq!(created, made, "each file is recorded once, in order");
    println!("{} files over 3 kills: {} records", made.len(), records.len());
}
