//! `kiln demo`: the whole chain in one command.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kiln_tests::cluster::is_gone;
use kiln_tests::process::run_within;
use kiln_tests::{binary, sample_log, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const DEMO_WITHIN: Duration = Duration::from_mins(5);

fn demo(dir: &tempfile::TempDir) -> Command {
    let mut command = Command::new(binary::kiln());
    command.arg("demo").current_dir(dir.path()).env("TMPDIR", dir.path()).env("KILN_NODE_CORES", "2");
    for name in ["KAFKA", "AMQP", "SYSLOG", "CONSOLE"] {
        command.env(format!("KILN_{name}_LISTEN"), "127.0.0.1:0");
    }
    command
}

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("kiln-").tempdir_in("/tmp").expect("a temporary directory")
}

#[test]
fn two_hundred_tasks_complete_once() {
    let dir = directory();
    let output = run_within(demo(&dir).arg("--json"), DEMO_WITHIN).ok();
    let last = output.stdout.lines().last().unwrap_or_default();
    let summary: serde_json::Value =
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {output}"));
    assert_eq!(summary["issued"], 200, "{summary}");
    assert_eq!(summary["completed"], 200, "{summary}");
    assert_eq!(summary["lost"], 0, "{summary}");
    assert_eq!(summary["duplicated"], 0, "{summary}");
    if kiln_tests::filesystem::can_mount() {
        assert_eq!(summary["filesystem"]["written"], 200, "{summary}");
        assert_eq!(summary["filesystem"]["read"], 200, "{summary}");
    } else {
        assert!(summary["filesystem"]["skipped"].is_string(), "{summary}");
    }
    assert!(summary["latency_ms_p50"].as_f64() <= summary["latency_ms_p99"].as_f64(), "{summary}");
    println!("{summary}");
}

#[test]
fn the_table_and_the_counts_are_shown() {
    let dir = directory();
    let output = run_within(&mut demo(&dir), DEMO_WITHIN).ok();
    for expected in ["silicon2", "silicon3", "silicon4", "200 issued"] {
        output.says(expected);
    }
    if kiln_tests::filesystem::can_mount() {
        output.says("200 written, 200 read back from another mount");
        output.says(r#""client":"#);
    }
    let left = mounts_below(dir.path());
    assert!(left.is_empty(), "still mounted: {left:?}");
}

/// What is mounted below a directory.
fn mounts_below(dir: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("the kernel's table of mounts");
    let places = table.lines().filter_map(|line| line.split(' ').nth(4));
    places.filter(|place| Path::new(place).starts_with(dir)).map(str::to_owned).collect()
}

#[test]
fn a_real_log_is_replayed() {
    let Some(log) = sample_log("OpenSSH_2k.log") else { return };
    let dir = directory();
    let output = run_within(demo(&dir).arg("--replay").arg(log), DEMO_WITHIN).ok();
    output.says("520");
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let dir = directory();
    let mut child = demo(&dir).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the demo starts");
    let demo = Pid::from_raw(child.id() as i32);
    let processes = Processes(wait_until("the demo has started its nodes", || {
        let all = descendants(demo);
        (all.len() >= 4).then_some(all)
    }));
    if kiln_tests::filesystem::can_mount() {
        wait_until("the filesystem is mounted", || (!mounts_below(dir.path()).is_empty()).then_some(()));
    }
    kill(demo, Signal::SIGINT).expect("a signal to a child");
    wait_for(&mut child);
    wait_until("all of its processes are gone", || processes.0.iter().all(|pid| is_gone(*pid)).then_some(()));
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).expect("the directory").flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Processes that must not outlive the test, whatever becomes of it.
struct Processes(Vec<Pid>);

impl Drop for Processes {
    fn drop(&mut self) {
        for pid in &self.0 {
            // ESRCH: it is gone, as it should be.
            let _ = kill(*pid, Signal::SIGKILL);
        }
    }
}

fn wait_for(child: &mut Child) {
    wait_until("the demo ends", || child.try_wait().expect("a child can be asked"));
}

/// All processes below `root`, by the parents that /proc names.
fn descendants(root: Pid) -> Vec<Pid> {
    let parents: Vec<(Pid, Pid)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| Some((Pid::from_raw(pid), parent(pid)?)))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

fn parent(pid: i32) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}
