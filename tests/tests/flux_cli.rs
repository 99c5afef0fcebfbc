//! `flux` as its users type it. Outputs and exit codes are those of flux-core.

use kiln_tests::{Cluster, run, wait_until};

#[test]
fn tasks_on_four_nodes() {
    let cluster = Cluster::start(4);
    let names = cluster.flux(&["run", "-n4", "-N4", "hostname"]).ok();
    assert_eq!(names.stdout.lines().count(), 4, "{names}");
    let distinct = distinct_names(&cluster);
    if distinct {
        assert_eq!(names.sorted(), ["silicon1", "silicon2", "silicon3", "silicon4"]);
    }
    let older = cluster.flux(&["mini", "run", "-n4", "-N4", "hostname"]).ok();
    assert_eq!(older.sorted(), names.sorted());
    let labelled = cluster.flux(&["run", "-n4", "-N4", "--label-io", "echo", "hi"]).ok();
    assert_eq!(labelled.sorted(), ["0: hi", "1: hi", "2: hi", "3: hi"]);
    let resources = cluster.flux(&["resource", "info"]).ok();
    assert_eq!(resources.stdout, "4 Nodes, 8 Cores, 0 GPUs\n");
    cluster.flux(&["resource", "list"]).ok().says("free      4      8     0 silicon[1-4]");
    assert_eq!(cluster.flux(&["getattr", "size"]).ok().stdout, "4\n");
    assert!(cluster.flux(&["version"]).ok().stdout.contains('.'));
    // `kiln flux` is the same program.
    assert_eq!(cluster.kiln(&["flux", "run", "-n4", "-N4", "hostname"]).ok().sorted(), names.sorted());
}

/// Whether nodes have host names of their own here; a machine may not allow it.
fn distinct_names(cluster: &Cluster) -> bool {
    let allowed = run(cluster.command("unshare").args(["--uts", "true"])).code == 0;
    if !allowed {
        println!("note: this machine allows no UTS namespaces, so that all nodes have its name");
    }
    allowed
}

#[test]
fn exit_codes_and_their_messages() {
    let cluster = Cluster::start(2);
    cluster.flux(&["run", "sh", "-c", "exit 3"]).code(3).says("flux-job: task(s) exited with exit code 3");
    let _ = cluster.flux(&["run", "-n2", "sh", "-c", "exit $FLUX_TASK_RANK"]).code(1);
    cluster.flux(&["run", "sh", "-c", "kill -9 $$"]).code(137).says("flux-job: task(s) Killed");
    cluster.flux(&["run", "sh", "-c", "kill -TERM $$"]).code(143).says("flux-job: task(s) Terminated");
    cluster.flux(&["run", "nosuchcommand"]).code(127).says("No such file or directory");
    cluster.flux(&["run", "/etc/passwd"]).code(126).says("Permission denied");
    cluster.flux(&["run"]).code(1).says("job command and arguments are missing");
    cluster.flux(&["run", "-n100", "true"]).code(1).says("unsatisfiable request");
    cluster.flux(&["run", "-N5", "-n5", "true"]).code(1).says("unsatisfiable request");
    cluster.flux(&["run", "-t", "bogus", "true"]).code(1).says("invalid Flux standard duration");
    cluster.flux(&["run", "-t", "0.3s", "sleep", "60"]).code(142).says("resource allocation expired");
    cluster.flux(&["nosuchcmd"]).code(1).says("is not a flux command");
}

#[test]
fn output_goes_to_files_when_asked() {
    let cluster = Cluster::start(1);
    let file = |name: &str| {
        std::fs::read_to_string(cluster.dir().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let _ = cluster.flux(&["run", "--output=o.txt", "--error=e.txt", "sh", "-c", "echo O; echo E >&2"]).ok();
    assert_eq!((file("o.txt").as_str(), file("e.txt").as_str()), ("O\n", "E\n"));
    let both = cluster.flux(&["run", "sh", "-c", "echo O; echo E >&2"]).ok();
    assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("O\n", "E\n"));
}

#[test]
fn a_job_from_submission_to_its_events() {
    let cluster = Cluster::start(2);
    let id = cluster
        .flux(&["submit", "-n2", "sh", "-c", "echo out $FLUX_TASK_RANK"])
        .ok()
        .stdout
        .trim()
        .to_owned();
    assert!(id.starts_with('ƒ'), "{id}");
    assert_eq!(cluster.flux(&["job", "attach", &id]).ok().sorted(), ["out 0", "out 1"]);
    let _ = cluster.flux(&["job", "wait-event", &id, "clean"]).ok();
    let eventlog = cluster.flux(&["job", "eventlog", &id]).ok();
    let events: Vec<_> = eventlog.stdout.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(
        events,
        ["submit", "validate", "depend", "priority", "alloc", "start", "finish", "release", "free", "clean"]
    );
    assert_eq!(cluster.flux(&["job", "info", &id, "R"]).ok().json()["version"], 1);
    assert_eq!(cluster.flux(&["job", "info", &id, "jobspec"]).ok().json()["tasks"][0]["command"][0], "sh");
    let _ = cluster.flux(&["job", "status", &id]).ok();
    let plain = id.replacen('ƒ', "f", 1);
    let _ = cluster.flux(&["job", "status", &plain]).ok();
    let listed = cluster.flux(&["jobs", "-a"]).ok();
    assert!(listed.stdout.lines().any(|line| line.contains(&id) && line.contains(" CD ")), "{listed}");
}

#[test]
fn what_the_instance_says_of_itself() {
    let cluster = Cluster::start(2);
    let owner = cluster.flux(&["getattr", "security.owner"]).ok().stdout;
    assert!(owner.trim().parse::<u32>().is_ok(), "{owner}");
    let start = cluster.flux(&["getattr", "broker.starttime"]).ok().stdout;
    assert!(start.trim().parse::<f64>().is_ok_and(|seconds| seconds > 1e9), "{start}");
    cluster.flux(&["uptime"]).ok().says(",  depth 0,  size 2");
    cluster.flux(&["queue", "list"]).ok().says("      inf      inf        0-2        0-4        0-0");
    let _ = cluster.flux(&["queue", "stop"]).ok();
    cluster.flux(&["uptime"]).ok().says("\n  scheduler disabled\n");
    let _ = cluster.flux(&["queue", "start"]).ok();
}

#[test]
fn a_command_follows_a_job_as_far_as_asked() {
    let cluster = Cluster::start(1);
    // As in Flux: how the tasks ended is not seen, so it is no success.
    assert_eq!(cluster.flux(&["run", "--wait-event=start", "echo", "abc"]).code(1).stdout, "abc\n");
    let _ = cluster.flux(&["run", "--wait-event=clean", "sh", "-c", "exit 3"]).code(3);
    let _ = cluster.flux(&["submit", "--cc=1-2", "--wait", "--log=ids.{cc}", "true"]).ok();
    for number in 1..=2 {
        let path = cluster.dir().join(format!("ids.{number}"));
        let ids = std::fs::read_to_string(path).expect("the log");
        assert!(ids.starts_with('ƒ'), "{ids}");
    }
}

#[test]
fn a_job_is_cancelled() {
    let cluster = Cluster::start(1);
    let id = cluster.flux(&["submit", "sleep", "600"]).ok().stdout.trim().to_owned();
    let _ = cluster.flux(&["job", "wait-event", &id, "start"]).ok();
    cluster.flux(&["jobs"]).ok().says(" R ");
    let _ = cluster.flux(&["cancel", &id]).ok();
    let status = cluster.flux(&["job", "status", &id]);
    assert_ne!(status.code, 0, "{status}");
    let listed = cluster.flux(&["jobs", "-a"]).ok();
    assert!(listed.stdout.lines().any(|line| line.contains(&id) && line.contains(" CA ")), "{listed}");
}

#[test]
fn jobs_wait_for_cores_in_order() {
    let cluster = Cluster::start(1);
    let long = cluster.flux(&["submit", "-n2", "sleep", "600"]).ok().stdout.trim().to_owned();
    let _ = cluster.flux(&["job", "wait-event", &long, "start"]).ok();
    let next = cluster.flux(&["submit", "-n1", "true"]).ok().stdout.trim().to_owned();
    wait_until("the second job waits for a core", || {
        let listed = cluster.flux(&["jobs"]).ok();
        listed.stdout.lines().any(|line| line.contains(&next) && line.contains(" S ")).then_some(())
    });
    let _ = cluster.flux(&["cancel", &long]).ok();
    let _ = cluster.flux(&["job", "wait-event", &next, "clean"]).ok();
}

#[test]
fn a_batch_script_leaves_its_output() {
    let cluster = Cluster::start(4);
    let script = "#!/bin/sh\necho in batch\nflux run -n4 -N4 hostname\nflux resource info\n";
    std::fs::write(cluster.dir().join("job.sh"), script).expect("a script");
    for spelling in [&["batch"][..], &["mini", "batch"]] {
        let id = cluster.flux(&[spelling, &["-n4", "-N4", "job.sh"]].concat()).ok().stdout.trim().to_owned();
        let _ = cluster.flux(&["job", "wait-event", &id, "clean"]).ok();
        let file = cluster.dir().join(format!("flux-{id}.out"));
        let output =
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(output.starts_with("in batch\n"), "{output}");
        assert_eq!(output.lines().count(), 6, "four names in between:\n{output}");
        assert!(output.ends_with("4 Nodes, 4 Cores, 0 GPUs\n"), "{output}");
    }
    cluster.flux(&["batch", "nosuch.sh"]).code(1).says("No such file or directory");
}

#[test]
fn excluded_nodes_run_nothing() {
    let settings = kiln_tests::Settings::nodes(2).toml("[cluster]\nexclude = \"silicon1\"\n");
    let cluster = Cluster::start_with(settings);
    assert_eq!(cluster.flux(&["resource", "info"]).ok().stdout, "1 Nodes, 2 Cores, 0 GPUs\n");
    cluster.flux(&["run", "-N2", "-n2", "true"]).code(1).says("only 1 eligible (silicon1 is excluded)");
    cluster.flux(&["resource", "status"]).ok().says("silicon1");
    let _ = cluster.flux(&["run", "-n2", "true"]).ok();
}
