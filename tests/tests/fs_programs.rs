//! Stock programs and system calls on the mounted filesystem of three nodes: on one, two and three mounts, each by a client of its own.
//!
//! The scripts are in tests/python/fs, and run on a plain directory too: `python3 tests/python/fs/all.py DIR DIR`.

use kiln_tests::filesystem::{Filesystem, SmallDisk, can_mount};
use kiln_tests::{Cluster, Settings};

const NODES: u32 = 3;
const NAME: &str = "scratch";
/// Set by `make test-long`.
const LONG: &str = "KILN_CHAOS_ROUNDS";

/// Rounds of something that `make test-long` does at length.
fn rounds(usual: u32, long: u32) -> String {
    if std::env::var_os(LONG).is_some() { long } else { usual }.to_string()
}

/// Runs a script on so many mounts of a new filesystem.
fn on_mounts(mounts: usize, script: &str, arguments: &[&str]) {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::start(NODES);
    let _ = Filesystem::create(&cluster, NAME, &[]).mounted(mounts).script(script, arguments);
}

#[test]
fn names_by_system_calls() {
    on_mounts(1, "posix_names.py", &[]);
}

#[test]
fn contents_by_system_calls() {
    on_mounts(1, "posix_data.py", &[]);
}

#[test]
fn attributes_by_system_calls() {
    on_mounts(1, "posix_attributes.py", &[]);
}

#[test]
fn locks_on_one_mount() {
    on_mounts(1, "posix_locks.py", &[]);
}

#[test]
fn locks_across_two_mounts() {
    on_mounts(2, "posix_locks.py", &[]);
}

#[test]
fn many_thousand_files_in_one_directory() {
    on_mounts(2, "posix_directories.py", &["--count", &rounds(40_000, 100_000)]);
}

#[test]
fn random_operations_on_one_mount_are_as_in_the_model() {
    on_mounts(1, "model.py", &["--steps", &rounds(5_000, 100_000)]);
}

#[test]
fn random_operations_on_three_mounts_are_as_in_the_model() {
    on_mounts(3, "model.py", &["--steps", &rounds(1_000, 50_000)]);
}

#[test]
fn nothing_is_stale_on_two_mounts() {
    on_mounts(2, "coherence.py", &["--rounds", &rounds(100, 1_000)]);
}

#[test]
fn git_clones_commits_and_checks() {
    on_mounts(2, "git_clone.py", &[]);
}

#[test]
fn c_and_rust_projects_are_built() {
    on_mounts(2, "build.py", &[]);
}

#[test]
fn sqlite_has_writers_on_two_mounts() {
    on_mounts(2, "sqlite_writers.py", &[]);
}

#[test]
fn sqlite_has_writers_on_three_mounts() {
    on_mounts(3, "sqlite_writers.py", &["--rows", "100"]);
}

#[test]
fn tar_packs_and_unpacks() {
    on_mounts(2, "tar_round_trip.py", &[]);
}

#[test]
fn rsync_mirrors() {
    on_mounts(2, "rsync_mirror.py", &[]);
}

#[test]
fn fio_verifies_what_it_wrote() {
    on_mounts(2, "fio_verify.py", &[]);
}

#[test]
fn dbench_finds_no_error() {
    on_mounts(2, "dbench_load.py", &[]);
}

#[test]
fn samba_serves_the_mount() {
    on_mounts(2, "samba_share.py", &[]);
}

/// Ranks 0 and 1 on one node, 2 and 3 on the other, each pair by a mount of its own.
#[test]
fn mpi_io_of_four_ranks_on_two_nodes() {
    on_mounts(2, "mpi_io.py", &["--launch", "flux run -n4 -N2"]);
}

/// The load goes on while a node is killed, another one in each round: each has a target, and one of them the MDT.
#[test]
fn no_completed_call_is_lost_when_servers_are_killed() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::start(NODES);
    let fs = Filesystem::create(&cluster, NAME, &[]).mounted(2);
    let kill = fs.script_command("kill_node.py", &["each"]);
    let _ = fs.script("crash.py", &["--rounds", &rounds(3, 20), "--disturb", &kill]);
}

#[test]
fn what_was_synced_is_there_after_a_client_was_killed() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::start(NODES);
    let fs = Filesystem::create(&cluster, NAME, &[]).mounted(2);
    let kill = fs.script_command("kill_client.py", &[NAME, &fs.mounts()[0].to_string_lossy()]);
    let _ = fs.script("crash.py", &["--rounds", &rounds(2, 10), "--client-dies", "--disturb", &kill]);
}

#[test]
fn locks_of_a_killed_client_are_freed() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::start(NODES);
    let fs = Filesystem::create(&cluster, NAME, &[]).mounted(2);
    let kill = fs.script_command("kill_client.py", &[NAME, &fs.mounts()[0].to_string_lossy(), "--only-kill"]);
    let _ = fs.script("killed_holder.py", &["--kill", &kill]);
}

/// Fills a filesystem whose MDT and OSTs have so many MiB.
fn full(mdt_mebibytes: u32, ost_mebibytes: u32, arguments: &[&str]) {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::start_with(Settings::nodes(2));
    let disk = |name: &str, size| SmallDisk::mount(cluster.data().with_file_name(name), size);
    let Some(mdt) = disk("mdt", mdt_mebibytes) else { return };
    let Some(ost0) = disk("ost0", ost_mebibytes) else { return };
    let Some(ost1) = disk("ost1", ost_mebibytes) else { return };
    let place = |rank: u32, disk: &SmallDisk| format!("{rank}:{}", disk.target().display());
    let options = ["--mdt", &place(0, &mdt), "--ost", &place(0, &ost0), "--ost", &place(1, &ost1)];
    let _ = Filesystem::create(&cluster, NAME, &options).mounted(2).script("full.py", arguments);
}

#[test]
fn full_osts_tell_who_writes() {
    full(256, 96, &["--mib", "400"]);
}

#[test]
fn a_full_mdt_tells_who_makes_files() {
    full(12, 96, &["--files", "--mib", "400"]);
}
