//! Mounts as programs see them: the kernel, the client, and servers in this process.
//!
//! Where there is no `/dev/fuse` that may be opened each test says so and does nothing.

#[path = "mount/cluster.rs"]
mod cluster;
#[path = "mount/coherence.rs"]
mod coherence;
#[path = "mount/failures.rs"]
mod failures;
#[path = "mount/posix.rs"]
mod posix;
#[path = "mount/quota.rs"]
mod quota;

use std::path::PathBuf;

use cluster::Cluster;

/// For people: serves a filesystem under the directory that `KILN_FS_DIR` names, and mounts it twice, until both mounts are
/// taken away.
#[test]
#[ignore = "waits for somebody to unmount"]
fn stay() {
    cluster::log();
    let dir = PathBuf::from(std::env::var("KILN_FS_DIR").expect("KILN_FS_DIR names a directory"));
    let cluster = Cluster::start(&dir);
    let mounts = ["mnt0", "mnt1"].map(|name| cluster.mount(name));
    println!("mounted");
    for mount in mounts {
        mount.wait();
    }
}
