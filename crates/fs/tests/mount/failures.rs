//! Servers that go away, and a mount that is put out.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use kiln_fs::mds;

use crate::cluster::with_cluster;

fn quick() -> mds::Settings {
    mds::Settings { recovery_limit: Duration::from_secs(3), ..mds::Settings::default() }
}

#[test]
fn programs_wait_while_the_servers_are_away_and_lose_nothing() {
    with_cluster(quick(), |cluster| {
        let mount = cluster.mount("mnt");
        fs::create_dir(mount.path("dir")).unwrap();
        let held_back = File::create(mount.path("held-back")).unwrap();
        held_back.write_all_at(b"written before", 0).unwrap();
        cluster.stop();
        std::thread::scope(|scope| {
            let working = scope.spawn(|| {
                for n in 0..50 {
                    fs::write(mount.path(&format!("dir/{n}")), n.to_string()).unwrap();
                }
            });
            cluster.serve();
            working.join().unwrap();
        });
        held_back.sync_all().unwrap();
        assert_eq!(fs::read(mount.path("held-back")).unwrap(), b"written before");
        assert_eq!(fs::read_dir(mount.path("dir")).unwrap().count(), 50);
        let other = cluster.mount("other");
        for n in 0..50 {
            assert_eq!(fs::read_to_string(other.path(&format!("dir/{n}"))).unwrap(), n.to_string());
        }
    });
}

#[test]
fn a_change_is_done_once_however_often_the_servers_restart() {
    with_cluster(quick(), |cluster| {
        let mount = cluster.mount("mnt");
        std::thread::scope(|scope| {
            let working = scope.spawn(|| {
                for n in 0..300 {
                    // Done twice, either would fail.
                    fs::create_dir(mount.path(&format!("d{n}"))).unwrap();
                    if n % 2 == 0 {
                        fs::remove_dir(mount.path(&format!("d{n}"))).unwrap();
                    }
                }
            });
            for _ in 0..4 {
                cluster.stop();
                cluster.serve();
                fs::metadata(mount.path("")).unwrap();
            }
            working.join().unwrap();
        });
        assert_eq!(fs::read_dir(mount.path("")).unwrap().count(), 150);
    });
}

#[test]
fn a_mount_that_is_evicted_loses_what_it_held_back_and_goes_on() {
    with_cluster(mds::Settings::default(), |cluster| {
        let mount = cluster.mount("mnt");
        fs::write(mount.path("old"), b"old").unwrap();
        File::open(mount.path("old")).unwrap().sync_all().unwrap();
        let mut lost =
            OpenOptions::new().write(true).create(true).truncate(true).open(mount.path("lost")).unwrap();
        lost.write_all(b"never arrives").unwrap();
        cluster.evict_all();
        // The mount hears of it by the end of its stream of callbacks; until then the file takes what is written.
        let told = loop {
            match lost.write_all(b"more").and_then(|()| lost.sync_all()) {
                Ok(()) => std::thread::yield_now(),
                Err(error) => break error.raw_os_error(),
            }
        };
        assert_eq!(told, Some(libc::EIO));
        drop(lost);
        // What is under way while everything is dropped may fail as well; what comes later does not.
        let old = loop {
            match fs::read(mount.path("old")) {
                Err(error) if error.raw_os_error() == Some(libc::EIO) => std::thread::yield_now(),
                read => break read.unwrap(),
            }
        };
        assert_eq!(old, b"old");
        fs::write(mount.path("new"), b"a new session").unwrap();
        let other = cluster.mount("other");
        assert_eq!(fs::read(other.path("new")).unwrap(), b"a new session");
    });
}
