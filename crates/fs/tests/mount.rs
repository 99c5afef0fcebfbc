//! Mounts as programs see them: the kernel, the client, and servers in this process.
//!
//! Where there is no `/dev/fuse` each test says so and does nothing.

#[path = "mount/cluster.rs"]
mod cluster;

use cluster::Cluster;

/// For people: serves and mounts in the directory that `KILN_FS_DIR` names, as many mounts as `KILN_FS_MOUNTS` says, until
/// they are unmounted.
#[test]
#[ignore = "waits for somebody to unmount"]
fn stay() {
    let _ = tracing_subscriber::fmt().with_env_filter(std::env::var("RUST_LOG").unwrap_or_default()).with_writer(std::io::stderr).try_init();
    let dir = std::path::PathBuf::from(std::env::var("KILN_FS_DIR").unwrap());
    let cluster = Cluster::start(&dir);
    let mounts: Vec<_> = (0..2).map(|n| cluster.mount(&format!("mnt{n}"))).collect();
    println!("mounted");
    for mount in mounts {
        mount.wait();
    }
}
