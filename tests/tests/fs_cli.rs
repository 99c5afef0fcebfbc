//! Filesystems, as an administrator and as a user meet them: made, looked at, mounted, spread, destroyed; and what happens when a node is killed.

use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use kiln_tests::cluster::kill_and_wait;
use kiln_tests::filesystem::can_mount;
use kiln_tests::{Cluster, Output, Settings, wait_until};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A mount that is taken away when the test ends, however it ends.
struct Mount<'c> {
    cluster: &'c Cluster,
    dir: PathBuf,
}

impl<'c> Mount<'c> {
    fn new(cluster: &'c Cluster, fs: &str, name: &str) -> Mount<'c> {
        let dir = cluster.dir().join(name);
        std::fs::create_dir_all(&dir).expect("a directory to mount on");
        let mounted = cluster.kiln(&["fs", "mount", fs, &text(&dir)]).ok();
        mounted.says("is mounted on");
        Mount { cluster, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn unmount(self) {
        let _ = self.cluster.kiln(&["fs", "umount", &text(&self.dir)]).ok();
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        // It may be unmounted already; a test that failed may have left programs in it.
        let _ = self.cluster.kiln(&["fs", "umount", "--lazy", &text(&self.dir)]);
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of the test's own").to_owned()
}

fn lfs(cluster: &Cluster, arguments: &[&str]) -> Output {
    kiln_tests::run(cluster.command("lfs").args(arguments))
}

fn status(cluster: &Cluster, name: &str) -> Value {
    let output = cluster.kiln(&["fs", "status", name, "--json"]);
    output.json()
}

/// The state of each target, by its label.
fn states(status: &Value) -> Vec<(String, String)> {
    let targets = status["targets"].as_array().expect("targets").iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    targets.map(|target| (text(&target["label"]), text(&target["state"]))).collect()
}

#[test]
fn a_filesystem_is_made_shown_and_destroyed() {
    let cluster = Cluster::start(3);
    cluster.kiln(&["fs", "status"]).ok().says("kiln fs create NAME");
    cluster.kiln(&["fs", "create", "scratch"]).ok().says("scratch is ready: 1 MDT, 3 OSTs");
    let made = status(&cluster, "scratch");
    assert_eq!(made["state"], "ok");
    let labels: Vec<_> = states(&made).into_iter().map(|(label, _)| label).collect();
    assert_eq!(labels, ["scratch-MDT0000", "scratch-OST0000", "scratch-OST0001", "scratch-OST0002"]);
    let nodes: Vec<_> = made["targets"].as_array().expect("targets").iter().map(|t| &t["node"]).collect();
    assert_eq!(nodes, ["silicon1", "silicon1", "silicon2", "silicon3"]);
    assert!(made["targets"][1]["space"]["total"].as_u64().is_some_and(|total| total > 0), "{made}");
    let listed = cluster.kiln(&["fs", "list", "--json"]).ok().json();
    assert_eq!(listed[0]["name"], "scratch");
    cluster.kiln(&["status"]).ok().says("scratch");
    assert_eq!(cluster.status()["services"]["filesystems"][0]["serving"], 4);

    let other = cluster.dir().join("disk");
    let place = format!("silicon2:{}", text(&other));
    cluster.kiln(&["fs", "add-ost", "scratch", &place]).ok().says("scratch-OST0003 is served on silicon2");
    assert!(other.join("scratch-OST0003/label").exists());
    cluster.kiln(&["fs", "drain-ost", "scratch", "1"]).ok().says("gets no new objects");
    let drained = status(&cluster, "scratch");
    assert_eq!(drained["targets"][2]["draining"], true);
    let _ = cluster.kiln(&["fs", "drain-ost", "scratch", "scratch-OST0001", "--undo"]).ok();

    cluster.kiln(&["fs", "destroy", "scratch"]).code(1).says("stays as it is");
    cluster.kiln(&["fs", "destroy", "scratch", "--yes"]).ok().says("is destroyed");
    assert!(!cluster.data().join("fs/scratch").exists());
    assert!(!other.join("scratch-OST0003").exists());
    let _ = cluster.kiln(&["fs", "create", "scratch"]).ok();
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let cluster = Cluster::start(1);
    let refused = |arguments: &[&str], says: &str| {
        cluster.kiln(arguments).code(1).says(says);
    };
    refused(&["fs", "create", "ninechars"], "1 to 8 letters");
    refused(&["fs", "create", "a", "--ost", "silicon9"], "its nodes are silicon1");
    refused(&["fs", "create", "a", "--mdt", "silicon1:/dev/null/x"], "not all of its targets are served");
    assert!(
        status(&cluster, "a")["targets"][0]["reason"].as_str().is_some_and(|why| why.contains("/dev/null"))
    );
    refused(&["fs", "destroy", "a", "--yes"], "--force");
    cluster.kiln(&["fs", "destroy", "a", "--yes", "--force"]).ok().says("destroyed");
    cluster.kiln(&["fs", "create", "a", "--ost", "silicon1:relative"]).code(2).says("NODE:/DIRECTORY");
    refused(&["fs", "status", "b"], "kiln fs list");
    refused(&["fs", "add-ost", "b", "silicon1"], "there is no filesystem b");
    let _ = cluster.kiln(&["fs", "create", "b"]).ok();
    assert_eq!(states(&status(&cluster, "b")).len(), 3, "one node has two OSTs");
    refused(&["fs", "create", "b"], "already");
    refused(&["fs", "drain-ost", "b", "7"], "b-OST0000, b-OST0001");
    let _ = cluster.kiln(&["fs", "drain-ost", "b", "0"]).ok();
    refused(&["fs", "drain-ost", "b", "1"], "add another first");
    refused(&["fs", "mount", "b", "/nowhere"], "mkdir -p /nowhere");
    refused(&["fs", "umount", "/tmp"], "no filesystem of Kiln is mounted on /tmp");
    lfs(&cluster, &["getstripe", "/tmp"]).code(1).says("is not on a filesystem of Kiln");
    lfs(&cluster, &["nonsense"]).code(1).says("is no command of lfs");
    lfs(&cluster, &["help"]).ok().says("setstripe");
}

#[test]
fn targets_come_back_with_their_nodes() {
    let mut cluster = Cluster::start(2);
    let _ = cluster.kiln(&["fs", "create", "scratch"]).ok();
    for rank in [0, 1] {
        cluster.kill_node(rank);
        cluster.wait_ready();
        wait_until("every target is served again", || {
            (status(&cluster, "scratch")["state"] == "ok").then_some(())
        });
    }
    // A disk that is gone is missed, and not begun anew.
    let gone = cluster.data().join("fs/scratch/OST0001");
    cluster.down();
    std::fs::rename(&gone, cluster.dir().join("away")).expect("a directory that can be moved");
    cluster.up();
    let missed = wait_until("it is missed", || {
        let now = status(&cluster, "scratch");
        (states(&now)[2].1 == "failed").then_some(now)
    });
    assert!(missed["targets"][2]["reason"].as_str().is_some_and(|why| why.contains("mount")), "{missed}");
    let _ = cluster.kiln(&["fs", "status", "scratch"]).code(4);
    cluster.kiln(&["status"]).ok().says("2 of 3 targets served");
    std::fs::rename(cluster.dir().join("away"), &gone).expect("it can be moved back");
    wait_until("it is served again", || (status(&cluster, "scratch")["state"] == "ok").then_some(()));
}

/// Settings under which a silent client is not waited for long.
fn quick(nodes: u32) -> Cluster {
    Cluster::start_with(Settings::nodes(nodes).toml("[fs]\nsession_timeout = \"4s\"\n"))
}

/// The same with a filesystem.
fn with_scratch(nodes: u32) -> Cluster {
    let cluster = quick(nodes);
    let _ = cluster.kiln(&["fs", "create", "scratch"]).ok();
    cluster
}

/// Whether a node has memory that a mount has lent to its OSTs.
fn has_lent_memory(cluster: &Cluster, rank: usize) -> bool {
    let maps = format!("/proc/{}/maps", cluster.pid(rank).expect("it runs"));
    std::fs::read_to_string(maps).expect("a process of ours").contains("memfd:kiln-rpc")
}

/// Bytes that differ from place to place.
fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(len).collect()
}

/// What a user does with an instance of their own; `$1` is the binary, `$2` an empty directory of theirs.
const AS_A_USER: &str = r#"
set -eu
kiln=$1 home=$2
export KILN_DATA=$home/data
for listener in KAFKA AMQP SYSLOG CONSOLE; do export "KILN_${listener}_LISTEN=127.0.0.1:0"; done
"$kiln" up --nodes 2 >"$home/up.log" 2>&1 &
trap '"$kiln" fs umount --lazy "$home/mnt" 2>/dev/null || true; "$kiln" down' EXIT
for _ in $(seq 200); do "$kiln" status >/dev/null 2>&1 && break; sleep 0.1; done
"$kiln" fs create scratch
mkdir "$home/mnt"
"$kiln" fs mount scratch "$home/mnt"
cd "$home/mnt"
mkdir dir
head -c 3000000 "$kiln" >dir/large
echo small >small
ln -s dir/large link
mv small dir/
head -c 3000000 "$kiln" | cmp - link
[ "$(cat dir/small)" = small ]
[ "$(stat -c %u dir/large)" = "$(id -u)" ]
cd "$home"
"$kiln" fs umount "$home/mnt"
[ -z "$(ls -A "$home/mnt")" ]
"$kiln" fs mount scratch "$home/mnt"
[ "$(cat "$home/mnt/dir/small")" = small ]
"$kiln" fs umount "$home/mnt"
echo a user may
"#;

/// Root gives the user a `/dev/fuse` as most systems have it, open to everybody, in a mount namespace of the test's own.
#[test]
fn a_user_who_is_not_root_mounts_a_filesystem_of_their_own() {
    const NOBODY: u32 = 65534;
    const WITH_DEVICE: &str = r#"
        set -eu
        mknod -m 666 "$2/fuse" c 10 229
        mount --bind "$2/fuse" /dev/fuse
        exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -c "$0" user "$1" "$2"
    "#;
    if !can_mount() {
        return;
    }
    let home = tempfile::tempdir().expect("a scratch directory");
    let binary = home.path().join("kiln");
    std::fs::copy(kiln_tests::binary::kiln(), &binary).expect("a copy where the user can read it");
    let mut command = if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(home.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", WITH_DEVICE, AS_A_USER]);
        command
    } else {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", AS_A_USER, "user"]);
        command
    };
    kiln_tests::run(command.arg(&binary).arg(home.path())).ok().says("a user may");
}

#[test]
fn a_mount_that_nobody_reads_or_writes_takes_its_memory_back() {
    if !can_mount() {
        return;
    }
    let cluster = with_scratch(1);
    let mount = Mount::new(&cluster, "scratch", "mount");
    let content = pattern(3_000_000, 3);
    std::fs::write(mount.path("f"), &content).expect("a file");
    nix::unistd::syncfs(std::fs::File::open(&mount.dir).expect("the mount")).expect("it is at the OST");
    assert!(has_lent_memory(&cluster, 0), "it went through memory");
    wait_until("the node has none of the mount's memory", || (!has_lent_memory(&cluster, 0)).then_some(()));
    std::fs::write(mount.path("g"), &content).expect("a file");
    nix::unistd::syncfs(std::fs::File::open(&mount.dir).expect("the mount")).expect("it is at the OST");
    assert!(has_lent_memory(&cluster, 0), "it lends some again");
    for name in ["f", "g"] {
        assert!(std::fs::read(mount.path(name)).expect("it is there") == content, "{name}");
    }
}

#[test]
fn files_that_were_removed_are_not_missed_when_the_mount_goes() {
    if !can_mount() {
        return;
    }
    let cluster = with_scratch(1);
    let mount = Mount::new(&cluster, "scratch", "mount");
    let paths: Vec<PathBuf> = (0..4000).map(|n| mount.path(&n.to_string())).collect();
    for path in &paths {
        std::fs::write(path, [7; 4096]).expect("a file, held back for a moment");
    }
    for path in &paths {
        std::fs::remove_file(path).expect("it is there");
    }
    std::fs::write(mount.path("kept"), "kept").expect("a file");
    mount.unmount();
    let logs = std::fs::read_dir(cluster.data().join("log")).expect("logs").flatten();
    let log = logs
        .map(|entry| entry.path())
        .find(|path| text(path).contains("/mount-"))
        .expect("the mount has one");
    let log = std::fs::read_to_string(log).expect("it is text");
    assert!(
        log.contains("everything is written back") && !log.contains("could not be written back"),
        "{log}"
    );
    let again = Mount::new(&cluster, "scratch", "again");
    assert_eq!(std::fs::read_to_string(again.path("kept")).expect("it was written back"), "kept");
}

#[test]
fn two_mounts_show_one_tree() {
    if !can_mount() {
        return;
    }
    let cluster = with_scratch(2);
    let (a, b) = (Mount::new(&cluster, "scratch", "a"), Mount::new(&cluster, "scratch", "b"));
    std::fs::create_dir(a.path("dir")).expect("a directory");
    let large = pattern(3_000_000, 1);
    std::fs::write(a.path("dir/large"), &large).expect("a file of several stripes");
    std::fs::write(b.path("dir/small"), "small").expect("a file on the MDT");
    assert!(std::fs::read(b.path("dir/large")).expect("the other mount has it") == large);
    for rank in 0..2 {
        assert!(has_lent_memory(&cluster, rank), "long pieces go through memory that the mount lends");
    }
    assert_eq!(std::fs::read_to_string(a.path("dir/small")).expect("the other mount has it"), "small");
    std::fs::rename(b.path("dir/small"), b.path("other")).expect("a new name");
    assert!(!a.path("dir/small").exists() && a.path("other").exists());
    assert_eq!(status(&cluster, "scratch")["clients"].as_array().map(Vec::len), Some(2));

    let again = cluster.kiln(&["fs", "mount", "scratch", &text(&a.dir)]).code(1);
    again.says("is mounted on");
    cluster.kiln(&["fs", "mount", "nothing", &text(&cluster.dir())]).code(1).says("not empty");
    let empty = cluster.dir().join("empty");
    std::fs::create_dir(&empty).expect("a directory");
    cluster.kiln(&["fs", "mount", "nothing", &text(&empty)]).code(1).says("there is no filesystem nothing");
    cluster
        .kiln(&["fs", "mount", "scratch", &text(&empty), "-o", "sync"])
        .code(2)
        .says("ro, rw, allow_other");
    cluster.kiln(&["fs", "destroy", "scratch", "--yes"]).code(1).says("is mounted on");
    let held = std::fs::File::open(a.path("dir/large")).expect("a file");
    cluster.kiln(&["fs", "umount", &text(&a.dir)]).code(1).says("fuser -vm");
    drop(held);

    a.unmount();
    std::fs::write(b.path("last"), "written").expect("the other mount goes on");
    b.unmount();
    let read_only = cluster.kiln(&["fs", "mount", "scratch", &text(&empty), "-o", "ro"]).ok();
    read_only.says("is mounted on");
    assert_eq!(std::fs::read_to_string(empty.join("last")).expect("it was written back"), "written");
    assert!(std::fs::write(empty.join("new"), "").is_err());
    let _ = cluster.kiln(&["fs", "umount", &text(&empty)]).ok();
    wait_until("nobody has it mounted", || {
        (status(&cluster, "scratch")["clients"].as_array().map(Vec::len) == Some(0)).then_some(())
    });
    let _ = cluster.kiln(&["fs", "destroy", "scratch", "--yes"]).ok();
}

#[test]
fn lfs_shows_and_sets_what_lustre_does() {
    if !can_mount() {
        return;
    }
    let cluster = with_scratch(2);
    let mount = Mount::new(&cluster, "scratch", "m");
    let at = |name: &str| text(&mount.path(name));
    let df = wait_until("the MDS has heard of all OSTs", || {
        let df = lfs(&cluster, &["df", "-h", &text(&mount.dir)]).ok();
        (!df.stdout.contains("inactive")).then_some(df)
    });
    let lines: Vec<&str> = df.stdout.lines().collect();
    assert_eq!(lines[0], "UUID                       bytes        Used   Available Use% Mounted on");
    assert!(lines[1].starts_with("scratch-MDT0000_UUID "), "{df}");
    assert!(lines[3].ends_with(&format!("{}[OST:1]", mount.dir.display())), "{df}");
    assert!(lines[5].starts_with("filesystem_summary: "), "{df}");

    let _ = lfs(&cluster, &["setstripe", "-c", "1", "-S", "128K", "-i", "1", &at("one")]).ok();
    let before = "lmm_stripe_count:  1\nlmm_stripe_size:   131072\nlmm_pattern:       raid0\n";
    lfs(&cluster, &["getstripe", &at("one")]).ok().says(before);
    std::fs::write(mount.path("one"), pattern(500_000, 2)).expect("a file");
    let shown = lfs(&cluster, &["getstripe", &at("one")]).ok();
    shown.says("lmm_stripe_offset: 1\n\tobdidx\t\t objid\t\t objid\t\t group\n\t     1\t");
    assert_eq!(lfs(&cluster, &["getstripe", "-i", &at("one")]).ok().stdout.trim(), "1");
    lfs(&cluster, &["setstripe", "-c", "2", &at("one")]).code(1).says("lfs migrate");

    std::fs::create_dir(mount.path("dir")).expect("a directory");
    let _ = lfs(&cluster, &["setstripe", "-E", "1M", "-L", "mdt", "-E", "-1", "-c", "2", &at("dir")]).ok();
    std::fs::write(mount.path("dir/file"), pattern(4_000_000, 3)).expect("a file");
    let shown = lfs(&cluster, &["getstripe", &at("dir/file")]).ok();
    shown.says("  lcm_entry_count:   2\n    lcme_id:             1\n    lcme_mirror_id:      0\n    lcme_flags:          init\n");
    shown.says("    lcme_extent.e_end:   1048576\n      lmm_stripe_count:  0\n");
    shown.says("      lmm_pattern:       mdt\n");
    shown.says("      lmm_objects:\n      - 0: { l_ost_idx: ");
    let _ = lfs(&cluster, &["setstripe", "-d", &at("dir")]).ok();
    lfs(&cluster, &["getstripe", "-d", &at("dir")]).ok().says("lcme_extent.e_end:   65536\n");

    let fid = lfs(&cluster, &["path2fid", &at("dir/file")]).ok().stdout.trim().to_owned();
    assert!(fid.starts_with("[0x200000400:0x") && fid.ends_with(":0x0]"), "{fid}");
    // By a path: other tests have a filesystem of this name too.
    assert_eq!(lfs(&cluster, &["fid2path", &text(&mount.dir), &fid]).ok().stdout.trim(), at("dir/file"));
    lfs(&cluster, &["fid2path", &text(&mount.dir), "[0x200000400:0xffff:0x0]"]).code(1).says("No such file");
    let found = lfs(&cluster, &["find", &text(&mount.dir), "-type", "f", "-size", "+1M"]).ok();
    assert_eq!(found.stdout.trim(), at("dir/file"));

    let _ = lfs(&cluster, &["migrate", "-c", "2", "-S", "64K", &at("one")]).ok();
    assert_eq!(lfs(&cluster, &["getstripe", "-c", &at("one")]).ok().stdout.trim(), "2");
    assert!(std::fs::read(mount.path("one")).expect("the same file") == pattern(500_000, 2));
    let names: Vec<_> =
        std::fs::read_dir(&mount.dir).expect("a directory").flatten().map(|e| e.file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn an_ost_is_added_and_another_drained_under_a_mount() {
    if !can_mount() {
        return;
    }
    let cluster = with_scratch(2);
    let mount = Mount::new(&cluster, "scratch", "m");
    let _ = cluster.kiln(&["fs", "add-ost", "scratch", "silicon2"]).ok();
    let _ = cluster.kiln(&["fs", "drain-ost", "scratch", "0"]).ok();
    let data = pattern(5_000_000, 4);
    // The MDS and the mount hear of it a moment later.
    let shown = wait_until("files go to the new OST and not to the drained one", || {
        let _ = std::fs::remove_file(mount.path("f"));
        std::fs::write(mount.path("f"), &data).expect("a file");
        let shown = lfs(&cluster, &["getstripe", &text(&mount.path("f"))]).ok().stdout;
        (shown.contains("l_ost_idx: 2,") && !shown.contains("l_ost_idx: 0,")).then_some(shown)
    });
    assert!(shown.contains("l_ost_idx: 1,"), "{shown}");
    assert!(std::fs::read(mount.path("f")).expect("the file") == data);
    lfs(&cluster, &["df", &text(&mount.dir)]).ok().says("[OST:0] N\n");
}

/// Objects that an OST has on its disk.
fn objects_of(cluster: &Cluster, fs: &str, ost: &str) -> usize {
    let shelves =
        std::fs::read_dir(cluster.data().join(format!("fs/{fs}/{ost}/O"))).expect("an OST").flatten();
    shelves.map(|shelf| std::fs::read_dir(shelf.path()).expect("a directory of objects").count()).sum()
}

/// What users see of a file that only moves.
fn seen(path: &Path) -> [i64; 8] {
    let stat = std::fs::metadata(path).expect("a file that is there");
    let owner = (i64::from(stat.uid()) << 32) + i64::from(stat.gid());
    let times = [stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec()];
    let [mtime, mtime_nsec, ctime, ctime_nsec] = times;
    [mtime, mtime_nsec, ctime, ctime_nsec, owner, stat.mode().into(), stat.len() as i64, stat.ino() as i64]
}

/// Reads files again and again until it is told to stop, each of which must be as it was made; returns how many it read.
fn keep_reading(files: Vec<(PathBuf, Vec<u8>)>, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    std::thread::spawn(move || {
        let mut read = 0;
        for (path, content) in files.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            assert!(std::fs::read(path).expect("it is there") == *content, "{} is as it was", path.display());
            read += 1;
        }
        read
    })
}

#[test]
fn a_drained_ost_loses_its_objects_while_files_are_read_and_written() {
    if !can_mount() {
        return;
    }
    let cluster = with_scratch(3);
    let (mount, other) = (Mount::new(&cluster, "scratch", "m"), Mount::new(&cluster, "scratch", "other"));
    std::fs::create_dir(mount.path("w")).expect("a directory");
    let files: Vec<(PathBuf, Vec<u8>)> = (0..40)
        .map(|nth| {
            (mount.path(&format!("f{nth}")), pattern([70_000, 300_000, 5_000_000, 10][nth % 4], nth as u64))
        })
        .collect();
    for (nth, (path, content)) in files.iter().enumerate() {
        std::fs::write(path, content).expect("a file");
        let mode = std::fs::Permissions::from_mode(0o600 + nth as u32);
        std::fs::set_permissions(path, mode).expect("its owner sets them");
    }
    let before: Vec<_> = files.iter().map(|(path, _)| seen(path)).collect();
    // Longer than what is on the MDT, with a hole, and open at the other mount.
    let held = std::fs::File::create(other.path("held")).expect("a file");
    held.write_all_at(&pattern(2_000_000, 9), 3_000_000).expect("it is written");
    held.sync_all().expect("it is on disk");
    assert!(objects_of(&cluster, "scratch", "OST0001") > 0);

    let stop = Arc::new(AtomicBool::new(false));
    let writer = keep_writing(mount.path("w"), Arc::clone(&stop));
    let elsewhere = files.iter().map(|(path, content)| {
        (other.path(path.file_name().expect("a name").to_str().expect("text")), content.clone())
    });
    let reader = keep_reading(elsewhere.collect(), Arc::clone(&stop));
    let stays = cluster.kiln(&["fs", "drain-ost", "scratch", "1", "--patience", "3"]).code(1);
    stays.says("/held stays on scratch-OST0001: it is open");
    stop.store(true, Ordering::Relaxed);
    assert!(reader.join().expect("what was read is right") > 0);
    let made = writer.join().expect("what was written is there");

    cluster.kiln(&["fs", "status", "scratch"]).ok().says("1 of them in use");
    held.write_all_at(b"still there", 10).expect("who has it open goes on");
    drop(held);
    cluster.kiln(&["fs", "drain-ost", "scratch", "1"]).ok().says("scratch-OST0001 is drained");
    assert_eq!(objects_of(&cluster, "scratch", "OST0001"), 0);
    cluster.kiln(&["fs", "status", "scratch"]).ok().says("serving, drained");
    assert_eq!(status(&cluster, "scratch")["targets"][2]["drain"]["state"], "drained");
    for ((path, content), before) in files.iter().zip(before) {
        assert_eq!(seen(path), before, "{}: users see no change", path.display());
        assert!(std::fs::read(path).expect("it is there") == *content, "{} is as it was", path.display());
    }
    for nth in 0..made {
        let len = if nth % 3 == 0 { 200_000 } else { 3_000 };
        assert!(
            std::fs::read(other.path(&format!("w/f{nth}"))).expect("it is there") == pattern(len, nth as u64)
        );
    }
    let mut expected = vec![0; 5_000_000];
    expected[3_000_000..].copy_from_slice(&pattern(2_000_000, 9));
    expected[10..21].copy_from_slice(b"still there");
    assert!(std::fs::read(mount.path("held")).expect("it is there") == expected);

    std::fs::write(mount.path("later"), pattern(5_000_000, 3)).expect("a file");
    let spread = || lfs(&cluster, &["getstripe", &text(&mount.path("later"))]).ok().stdout;
    assert!(!spread().contains("l_ost_idx: 1,"), "{}", spread());
    cluster.kiln(&["fs", "drain-ost", "scratch", "1", "--undo"]).ok().says("gets new objects again");
    assert_eq!(status(&cluster, "scratch")["targets"][2]["drain"], Value::Null);
    wait_until("new files are on it again", || {
        let _ = std::fs::remove_file(mount.path("later"));
        std::fs::write(mount.path("later"), pattern(5_000_000, 3)).expect("a file");
        spread().contains("l_ost_idx: 1,").then_some(())
    });
}

#[test]
fn a_drain_goes_on_after_nodes_were_killed_and_leaves_nothing_behind() {
    if !can_mount() {
        return;
    }
    let mut cluster = quick(3);
    let _ = cluster.kiln(&["fs", "create", "scratch"]).ok();
    let mount_dir = cluster.dir().join("m");
    std::fs::create_dir_all(&mount_dir).expect("a directory to mount on");
    let _ = cluster.kiln(&["fs", "mount", "scratch", &text(&mount_dir)]).ok();
    let files: Vec<_> = (0..30).map(|nth| mount_dir.join(format!("f{nth}"))).collect();
    for (nth, path) in files.iter().enumerate() {
        std::fs::write(path, pattern(6_000_000, nth as u64)).expect("a file");
    }
    nix::unistd::syncfs(std::fs::File::open(&mount_dir).expect("the mount")).expect("all is on disk");
    let _ = cluster.kiln(&["fs", "drain-ost", "scratch", "2", "--no-wait"]).ok();
    // The MDS with the MGS, one that objects go to, and the one that they come from.
    for rank in [0, 1, 2] {
        cluster.kill_node(rank);
        cluster.wait_ready();
    }
    cluster.kiln(&["fs", "drain-ost", "scratch", "2"]).ok().says("scratch-OST0002 is drained");
    assert_eq!(objects_of(&cluster, "scratch", "OST0002"), 0);
    for (nth, path) in files.iter().enumerate() {
        assert!(std::fs::read(path).expect("it is there") == pattern(6_000_000, nth as u64), "file {nth}");
        std::fs::remove_file(path).expect("it goes");
    }
    wait_until("no copy that was begun is left", || {
        let left = ["OST0000", "OST0001"].map(|ost| objects_of(&cluster, "scratch", ost));
        (left == [0, 0]).then_some(())
    });
    let _ = cluster.kiln(&["fs", "umount", &text(&mount_dir)]).ok();
}

/// Makes files until it is told to stop, each written and synced; returns how many.
fn keep_writing(dir: PathBuf, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    std::thread::spawn(move || {
        let mut made = 0;
        while !stop.load(Ordering::Relaxed) {
            // Some on the MDT alone, some over the OSTs.
            let len = if made % 3 == 0 { 200_000 } else { 3_000 };
            let mut file = std::fs::File::create(dir.join(format!("f{made}"))).expect("a file is made");
            file.write_all(&pattern(len, made as u64)).expect("it is written");
            file.sync_all().expect("it is on disk");
            made += 1;
        }
        made
    })
}

#[test]
fn nothing_is_lost_when_nodes_are_killed() {
    if !can_mount() {
        return;
    }
    let mut cluster = quick(3);
    let _ = cluster.kiln(&["fs", "create", "scratch"]).ok();
    let mounts = ["a", "b"].map(|name| {
        let dir = cluster.dir().join(name);
        std::fs::create_dir_all(&dir).expect("a directory to mount on");
        let _ = cluster.kiln(&["fs", "mount", "scratch", &text(&dir)]).ok();
        dir
    });
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = mounts
        .iter()
        .enumerate()
        .map(|(nth, dir)| {
            let own = dir.join(format!("w{nth}"));
            std::fs::create_dir(&own).expect("a directory");
            keep_writing(own, Arc::clone(&stop))
        })
        .collect();
    // An OSS, the MDS with the MGS, and an OSS again.
    for rank in [1, 0, 2] {
        cluster.kill_node(rank);
        cluster.wait_ready();
        let count = || std::fs::read_dir(mounts[0].join("w0")).expect("the directory").count();
        let before = count();
        wait_until("writing goes on", || (count() > before + 5).then_some(()));
    }
    stop.store(true, Ordering::Relaxed);
    let made: Vec<usize> =
        writers.into_iter().map(|writer| writer.join().expect("no call has failed")).collect();
    for (nth, count) in made.into_iter().enumerate() {
        // By the mount that did not write them.
        let dir = mounts[1 - nth].join(format!("w{nth}"));
        for file in 0..count {
            let len = if file % 3 == 0 { 200_000 } else { 3_000 };
            let read = std::fs::read(dir.join(format!("f{file}"))).expect("every file is there");
            assert!(read == pattern(len, file as u64), "file {file} of writer {nth} is as it was written");
        }
        assert_eq!(std::fs::read_dir(&dir).expect("the directory").count(), count);
    }
    for dir in &mounts {
        let _ = cluster.kiln(&["fs", "umount", &text(dir)]).ok();
    }
}

#[test]
fn a_client_that_dies_holds_nobody_up_for_long() {
    if !can_mount() {
        return;
    }
    let cluster = with_scratch(2);
    let (dead, alive) = (Mount::new(&cluster, "scratch", "dead"), Mount::new(&cluster, "scratch", "alive"));
    std::fs::write(dead.path("f"), "from the one that dies").expect("a file, with its leases");
    let pid = mount_pid(&cluster, &dead.dir);
    kill_and_wait(pid);
    // The request that meets the end of the client is ended with another error.
    wait_until("its mount is dead", || {
        let error = std::fs::metadata(dead.path("f")).err()?;
        (error.raw_os_error() == Some(Errno::ENOTCONN as i32)).then_some(())
    });
    std::fs::write(alive.path("f"), "from the other").expect("its leases are free within the limit");
    assert_eq!(std::fs::read_to_string(alive.path("f")).expect("a file"), "from the other");
    cluster.kiln(&["fs", "mount", "scratch", &text(&dead.dir)]).code(1).says("kiln fs umount");
    let _ = cluster.kiln(&["fs", "umount", &text(&dead.dir)]).ok();
    let _ = cluster.kiln(&["fs", "mount", "scratch", &text(&dead.dir)]).ok();
    assert_eq!(std::fs::read_to_string(dead.path("f")).expect("mounted again"), "from the other");
}

#[test]
fn a_destroyed_filesystem_gives_errors_and_does_not_hang() {
    if !can_mount() {
        return;
    }
    let cluster = with_scratch(2);
    let mount = Mount::new(&cluster, "scratch", "m");
    std::fs::write(mount.path("f"), pattern(1_000_000, 5)).expect("a file");
    let _ = cluster.kiln(&["fs", "destroy", "scratch", "--yes", "--force"]).ok();
    let error = wait_until("the mount hears of it", || std::fs::write(mount.path("g"), "x").err());
    assert_eq!(error.raw_os_error(), Some(Errno::EIO as i32));
    mount.unmount();
    let _ = cluster.kiln(&["fs", "create", "scratch"]).ok();
    let mount = Mount::new(&cluster, "scratch", "m");
    assert_eq!(std::fs::read_dir(&mount.dir).expect("a directory").count(), 0);
}

/// A program that has written to a file, and has it open.
struct Program {
    goes_on: Sender<()>,
    thread: JoinHandle<()>,
}

impl Program {
    fn start(path: PathBuf) -> Program {
        let (goes_on, told) = channel();
        let (wrote, written) = channel();
        let thread = std::thread::spawn(move || {
            // Commands that are started would close the file for their part, and that waits for the mount.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).expect("a table of files of its own");
            let file = std::fs::File::options().write(true).open(path).expect("it stays open");
            file.write_all_at(&pattern(1_000_000, 6), 500_000).expect("it is held back");
            wrote.send(()).expect("somebody waits");
            told.recv().expect("it is told to go on");
            assert!(file.sync_all().is_err(), "what was held back is lost");
            assert!(file.write_all_at(b"x", 0).is_err());
        });
        written.recv().expect("it could write");
        Program { goes_on, thread }
    }

    fn finds_that_all_is_lost(self) {
        self.goes_on.send(()).expect("it waits");
        self.thread.join().expect("it gets errors");
    }
}

#[test]
fn a_mount_of_a_destroyed_filesystem_changes_nothing_in_the_next_of_its_name() {
    if !can_mount() {
        return;
    }
    let cluster = with_scratch(2);
    let old = Mount::new(&cluster, "scratch", "old");
    std::fs::write(old.path("f"), pattern(1_000_000, 5)).expect("a file");
    let program = Program::start(old.path("f"));
    cluster.kiln(&["fs", "destroy", "scratch", "--yes"]).code(1).says("is mounted on");
    // While its process sleeps it hears of nothing.
    let pid = mount_pid(&cluster, &old.dir);
    kill(pid, Signal::SIGSTOP).expect("its process is there");
    cluster.kiln(&["fs", "destroy", "scratch", "--yes", "--force"]).ok().says("scratch is destroyed");
    cluster.kiln(&["fs", "create", "scratch"]).ok().says("is ready");
    let new = Mount::new(&cluster, "scratch", "new");
    // Inodes and objects have the numbers that those of the old one had.
    let content = pattern(3_000_000, 7);
    std::fs::write(new.path("f"), &content).expect("a file");
    nix::unistd::syncfs(std::fs::File::open(&new.dir).expect("the mount")).expect("it is on disk");
    kill(pid, Signal::SIGCONT).expect("its process is there");
    program.finds_that_all_is_lost();
    let refused = |error: std::io::Error| error.raw_os_error();
    assert_eq!(std::fs::write(old.path("g"), "x").map_err(refused), Err(Some(Errno::EIO as i32)));
    assert_eq!(std::fs::read(old.path("f")).map_err(refused), Err(Some(Errno::EIO as i32)));
    old.unmount();
    assert!(std::fs::read(new.path("f")).expect("a file") == content, "nobody has written there");
    new.unmount();
    let new = Mount::new(&cluster, "scratch", "new");
    assert!(std::fs::read(new.path("f")).expect("a file") == content, "nor at the OSTs");
    assert_eq!(std::fs::read_dir(&new.dir).expect("a directory").count(), 1);
    // Records come to the topic a moment after what they tell of.
    let first = wait_until("the changelog has a record", || {
        let log = lfs(&cluster, &["changelog", "scratch-MDT0000", "0", "99"]).ok().stdout;
        log.lines().next().map(str::to_owned)
    });
    assert!(first.starts_with("1 "), "{first}");
}

/// The process of the mount on `dir`.
fn mount_pid(cluster: &Cluster, dir: &Path) -> Pid {
    let notes = std::fs::read_dir(cluster.data().join("run/mounts")).expect("notes of mounts").flatten();
    let notes =
        notes.filter_map(|note| serde_json::from_slice::<Value>(&std::fs::read(note.path()).ok()?).ok());
    let found = notes.into_iter().find(|note| note["dir"] == text(dir)).expect("a note of this mount");
    Pid::from_raw(found["pid"].as_i64().expect("a pid") as i32)
}
