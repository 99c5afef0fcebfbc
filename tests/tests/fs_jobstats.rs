//! What jobs do to a filesystem is counted under their ids.

use std::time::Duration;

use kiln_tests::filesystem::{Filesystem, can_mount};
use kiln_tests::process::run_within;
use kiln_tests::{Cluster, wait_until};
use serde_json::Value;

/// Bytes that the job writes at once, and how often.
const WRITE_BYTES: u64 = 65536;
const WRITES: u64 = 4;
/// Nothing takes so long, unless it hangs.
const EXECUTED_WITHIN: Duration = Duration::from_secs(30);

fn stats(cluster: &Cluster, job: &str) -> Option<Value> {
    let all: Value = cluster.kiln(&["fs", "jobstats", "scratch", "--json"]).ok().json();
    all.as_array().expect("jobs").iter().find(|stats| stats["job_id"] == job).cloned()
}

#[test]
fn a_flux_job_is_found_by_its_id() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::start(2);
    let fs = Filesystem::create(&cluster, "scratch", &[]).mounted(2);
    let dir = fs.mounts()[0].display().to_string();
    let script = format!(
        "mkdir {dir}/d && dd if=/dev/zero of={dir}/d/f bs={WRITE_BYTES} count={WRITES} && mv {dir}/d/f {dir}/g && rm {dir}/g"
    );
    let job = cluster.flux(&["submit", "sh", "-c", &script]).ok().stdout.trim().to_owned();
    let _ = cluster.flux(&["job", "attach", &job]).ok();
    let expected = [("mkdir", 1), ("mknod", 1), ("rename", 1), ("unlink", 1), ("write_bytes", WRITES)];
    let samples = |stats: &Value, operation: &str| stats["operations"][operation]["samples"].as_u64();
    // A mount tells what was done a few seconds later.
    let stats = wait_until("the MDT has heard of the job", || {
        let stats = stats(&cluster, &job)?;
        expected.iter().all(|(operation, count)| samples(&stats, operation) == Some(*count)).then_some(stats)
    });
    let written = &stats["operations"]["write_bytes"];
    let bytes = ["min", "max", "sum"].map(|field| written[field].as_u64().unwrap_or_default());
    assert_eq!(bytes, [WRITE_BYTES, WRITE_BYTES, WRITE_BYTES * WRITES], "{stats}");

    // Who is in no job goes by the program's name and the user.
    std::fs::create_dir(fs.mounts()[1].join("e")).expect("a directory");
    let uid = nix::unistd::geteuid();
    wait_until("the MDT has heard of this program", || {
        let all: Value = cluster.kiln(&["fs", "jobstats", "--json"]).ok().json();
        let mut all = all.as_array().expect("jobs").iter();
        let is_own =
            |stats: &Value| stats["job_id"].as_str().is_some_and(|id| id.ends_with(&format!(".{uid}")));
        all.any(|stats| is_own(stats) && samples(stats, "mkdir") == Some(1)).then_some(())
    });

    cluster.kiln(&["fs", "jobstats"]).ok().says(&job);
    let yaml = cluster.kiln(&["fs", "jobstats", "--yaml"]).ok();
    yaml.says("job_stats:");
    yaml.says(&format!("- job_id:          {job}"));
    let metrics = kiln_tests::run(cluster.command("curl").args(["-sf", &metrics_url(&cluster)])).ok();
    metrics.says(&format!(r#"job="{job}""#));
    metrics.says("kiln_fs_target_requests");
}

/// The kernel closes files of a program that executes another one, and lets nobody look at it meanwhile: a mount that looked
/// would wait for the program, and the program for the mount.
#[test]
fn a_program_with_an_open_file_executes_others() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::start(1);
    let fs = Filesystem::create(&cluster, "scratch", &[]).mounted(1);
    let path = fs.mounts()[0].join("open");
    std::fs::write(&path, "text").expect("a file");
    for _ in 0..100 {
        // Closed by execve(2), in the process that becomes `true`.
        let open = std::fs::File::open(&path).expect("it is there");
        let _ = run_within(&mut std::process::Command::new("true"), EXECUTED_WITHIN).ok();
        drop(open);
    }
}

fn metrics_url(cluster: &Cluster) -> String {
    format!("http://{}/metrics", cluster.address("console"))
}
