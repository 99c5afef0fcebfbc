//! Filesystems, as an administrator and as a user meet them: made, looked at, mounted, spread, destroyed; and what happens when a node is killed.

use std::path::{Path, PathBuf};

use kiln_tests::{Cluster, Output, wait_until};
use serde_json::Value;

/// Whether this machine can mount by FUSE; a test that cannot says so and passes.
fn can_mount() -> bool {
    let there = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok();
    let root = nix::unistd::geteuid().is_root();
    if !there || !root {
        println!("note: not shown here, since this test mounts: it needs /dev/fuse, and root");
    }
    there && root
}

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
    let refused = |arguments: &[&str], says: &str| cluster.kiln(arguments).code(1).says(says);
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
