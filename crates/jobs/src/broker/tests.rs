//! Brokers with real sockets, a real log and real processes, all in one process of their own.
//!
//! Tasks are small shell scripts, or this test program itself: see [`as_pmi_task`] and [`as_nested_broker`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_log::Volume;
use kiln_types::{IdSet, JobId, Rank};
use kiln_world::{RealClock, RealDisk, RealRng};
use serde_json::{Value, json};

use super::{
    Ended, Handle, Jobs, LeaderSettings, NestedSettings, NodeSettings, nested, start_leader, start_member,
};
use crate::core::NodeConfig;
use crate::proto::{JobResult, OutputEvent, Reply, Request, Stream, Submit, SubmitFlags};
use crate::spec::build::NewJob;

/// Set in the tasks of these tests, so that the tests which are tasks know that they are.
const AS_TASK: &str = "KILN_TEST_TASK";

/// An instance whose leader runs no jobs, unless the test wants it to.
struct Instance {
    dir: tempfile::TempDir,
    size: u32,
    leader_excluded: bool,
    volume: Volume,
    leader: Option<Handle>,
    members: Vec<Handle>,
}

fn node(dir: &Path, rank: u32) -> NodeSettings {
    NodeSettings {
        rank: Rank(rank),
        host: format!("n{rank}"),
        cores: IdSet::range(0..=1),
        socket: dir.join(format!("local-{rank}")),
        tmp: dir.join(format!("tmp-{rank}")),
        pmi_library: Some("/lib/libpmi.so".into()),
        bin_dir: None,
        jobid_path: String::new(),
        clock: Arc::new(RealClock::new()),
        rng: Arc::new(RealRng),
    }
}

impl Instance {
    async fn start(size: u32, leader_excluded: bool) -> Instance {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let disk = RealDisk::new(dir.path().join("data")).expect("a disk");
        let volume = Volume::start(Arc::new(disk), Arc::new(RealClock::new()));
        let mut instance = Instance { dir, size, leader_excluded, volume, leader: None, members: Vec::new() };
        instance.start_leader().await;
        for rank in 1..size {
            instance.start_member(rank).await;
        }
        instance
    }

    async fn start_leader(&mut self) {
        let config = |rank| NodeConfig {
            rank: Rank(rank),
            host: format!("n{rank}"),
            cores: IdSet::range(0..=1),
            excluded: rank == 0 && self.leader_excluded,
        };
        let settings = LeaderSettings {
            node: node(self.dir.path(), 0),
            volume: self.volume.clone(),
            dir: "jobs/events".into(),
            nodes: (0..self.size).map(config).collect(),
            attributes: Vec::new(),
        };
        self.leader = Some(start_leader(settings).await.expect("a leader"));
    }

    async fn start_member(&mut self, rank: u32) {
        let member = start_member(node(self.dir.path(), rank), &self.socket(0)).await.expect("a member");
        self.members.push(member);
    }

    /// Ends the leader; the members are not told, and go on.
    async fn stop_leader(&mut self) {
        if let Some(leader) = self.leader.take() {
            leader.drain(Duration::ZERO).await;
        }
    }

    fn socket(&self, rank: u32) -> PathBuf {
        self.dir.path().join(format!("local-{rank}"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn jobs(&self) -> Jobs {
        Jobs::new(self.socket(self.size - 1))
    }

    async fn submit(&self, job: NewJob) -> JobId {
        let job = NewJob {
            cwd: self.dir.path().display().to_string(),
            environment: vec![("PATH".into(), "/usr/bin:/bin".into()), (AS_TASK.into(), "1".into())],
            ..job
        };
        let jobspec = job.jobspec().expect("a jobspec").to_string();
        let submit = Submit { jobspec, urgency: 16, flags: SubmitFlags::default(), key: None };
        let reply = self.jobs().ask(&Request::Submit(Box::new(submit))).await.expect("submitted");
        let Reply::Submitted { id, .. } = reply else { panic!("not an id: {reply:?}") };
        id
    }

    async fn run(&self, job: NewJob) -> Finished {
        let id = self.submit(job).await;
        self.finish(id).await
    }

    async fn finish(&self, id: JobId) -> Finished {
        let ended = self.jobs().wait(id).await.expect("it ends");
        Finished { output: self.output(id).await, ended }
    }

    async fn output(&self, id: JobId) -> Vec<OutputEvent> {
        let mut output: Vec<OutputEvent> = Vec::new();
        loop {
            let request = Request::Output { id, from: output.len() as u64, wait_ms: 1000 };
            let reply = self.jobs().ask(&request).await.expect("output");
            let Reply::Output { pieces, finished } = reply else { panic!("not output: {reply:?}") };
            output.extend(pieces.into_iter().map(|piece| piece.what));
            if finished {
                return output;
            }
        }
    }

    async fn ask(&self, request: Request) -> Reply {
        self.jobs().ask(&request).await.expect("an answer")
    }

    /// Waits for a file that a task writes.
    async fn file(&self, name: &str) -> String {
        loop {
            match std::fs::read_to_string(self.path(name)) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

struct Finished {
    ended: Ended,
    output: Vec<OutputEvent>,
}

impl Finished {
    /// What all tasks wrote, by task.
    fn text(&self, stream: Stream) -> String {
        let mut pieces: Vec<(u32, &[u8])> = self
            .output
            .iter()
            .filter_map(|event| match event {
                OutputEvent::Data { stream: of, task, data, .. } if *of == stream => {
                    Some((*task, data.0.as_slice()))
                }
                _ => None,
            })
            .collect();
        pieces.sort_by_key(|(task, _)| *task);
        let bytes: Vec<u8> = pieces.into_iter().flat_map(|(_, data)| data.to_vec()).collect();
        String::from_utf8(bytes).expect("text")
    }

    fn exit_code(&self) -> i32 {
        self.ended.exit_code
    }
}

fn sh(script: &str) -> NewJob {
    command(&["/bin/sh", "-c", script])
}

fn command(words: &[&str]) -> NewJob {
    let command = words.iter().map(|&word| word.to_owned()).collect();
    NewJob { command, ntasks: 1, cores_per_task: 1, ..NewJob::default() }
}

/// One task on each of so many nodes.
fn on_nodes(nodes: u32, job: NewJob) -> NewJob {
    NewJob { ntasks: nodes, nodes: Some(nodes), ..job }
}

fn with_option(job: NewJob, path: &str, value: Value) -> NewJob {
    let mut options = job.options.clone();
    options.push((path.to_owned(), value));
    NewJob { options, ..job }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_and_its_streams_and_exit_code_come_back() {
    let instance = Instance::start(2, true).await;
    let done = instance.run(sh("echo out; echo err >&2; exit 3")).await;
    assert_eq!(done.text(Stream::Stdout), "out\n");
    assert_eq!(done.text(Stream::Stderr), "err\n");
    assert_eq!((done.exit_code(), done.ended.result), (3, JobResult::Failed));
    let ends = done.output.iter().filter(|event| matches!(event, OutputEvent::Data { eof: true, .. }));
    assert_eq!(ends.count(), 2);
    assert!(
        std::fs::read_dir(instance.path("tmp-1")).expect("a directory").next().is_none(),
        "the job's directory is gone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_has_a_task_on_each_node_with_its_own_variables() {
    let instance = Instance::start(3, false).await;
    let script = "echo $FLUX_TASK_RANK $FLUX_TASK_LOCAL_ID $FLUX_JOB_SIZE $FLUX_JOB_NNODES ${FLUX_URI##*/} $PMI_RANK/$PMI_SIZE";
    let done = instance.run(NewJob { ntasks: 6, nodes: Some(3), ..sh(script) }).await;
    let lines = (0..6).map(|task| format!("{task} {} 6 3 local-{} {task}/6", task % 2, task / 2));
    assert_eq!(done.text(Stream::Stdout).lines().collect::<Vec<_>>(), lines.collect::<Vec<_>>());
    assert_eq!(done.exit_code(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_do_not_start_say_why() {
    let instance = Instance::start(2, true).await;
    let cases =
        [("nosuchcommand", 127, "No such file or directory"), ("/etc/passwd", 126, "Permission denied")];
    for (program, code, reason) in cases {
        let done = instance.run(command(&[program])).await;
        assert_eq!(done.exit_code(), code, "{program}");
        assert_eq!(
            done.ended.exception,
            format!("exec: task 0 (host n1): start failed: {program}: {reason}")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_goes_to_one_file_of_the_job_or_one_of_each_task() {
    let instance = Instance::start(3, false).await;
    std::fs::write(instance.path("all.txt"), "old\n").expect("a file");
    let shared = on_nodes(3, sh("echo $FLUX_TASK_RANK; echo e >&2"));
    let shared =
        with_option(shared, "output.stdout", json!({"type": "file", "path": "all.txt", "label": true}));
    let done = instance.run(shared).await;
    assert_eq!(done.text(Stream::Stdout), "");
    let text = std::fs::read_to_string(instance.path("all.txt")).expect("the file");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0: 0", "0: e", "1: 1", "1: e", "2: 2", "2: e"]);
    let redirects: Vec<_> =
        done.output.iter().filter(|event| matches!(event, OutputEvent::Redirect { .. })).collect();
    assert_eq!(redirects.len(), 2, "{redirects:?}");

    let own = with_option(
        on_nodes(2, sh("echo $FLUX_TASK_RANK")),
        "output.stdout",
        json!({"type": "file", "path": "t.{{taskid}}.{{name}}.out"}),
    );
    instance.run(NewJob { name: Some("own".into()), ..own }).await;
    for task in 0..2 {
        let text = std::fs::read_to_string(instance.path(&format!("t.{task}.own.out"))).expect("the file");
        assert_eq!(text, format!("{task}\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_reaches_all_tasks_and_ends() {
    let instance = Instance::start(2, true).await;
    let id = instance.submit(NewJob { ntasks: 2, ..command(&["cat"]) }).await;
    for (data, eof) in [("one\n", false), ("two\n", true)] {
        let request = Request::Stdin { id, tasks: None, data: data.as_bytes().into(), eof };
        while instance.jobs().ask(&request).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert_eq!(instance.finish(id).await.text(Stream::Stdout), "one\ntwo\none\ntwo\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_cancel_and_the_time_limit_end_tasks() {
    let instance = Instance::start(2, true).await;
    let killed = instance.submit(sh("echo > killed; exec sleep 100")).await;
    instance.file("killed").await;
    instance.ask(Request::Kill { id: killed, signal: 10 }).await;
    assert_eq!(instance.finish(killed).await.exit_code(), 138);

    let canceled = instance.submit(sh("echo > canceled; exec sleep 100")).await;
    instance.file("canceled").await;
    instance.jobs().cancel(canceled, "").await.expect("canceled");
    let done = instance.finish(canceled).await;
    assert_eq!((done.exit_code(), done.ended.result), (143, JobResult::Canceled));

    let limited = instance.run(NewJob { duration: 0.2, ..command(&["sleep", "100"]) }).await;
    assert_eq!((limited.exit_code(), limited.ended.result), (142, JobResult::Timeout));
    assert_eq!(limited.ended.exception, "timeout: resource allocation expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_outlive_the_first_are_ended_after_the_exit_timeout() {
    let instance = Instance::start(3, true).await;
    let job = on_nodes(2, sh("[ $FLUX_TASK_RANK = 0 ] || exec sleep 100"));
    let done = instance.run(with_option(job, "exit-timeout", json!("0.1s"))).await;
    assert_eq!(done.exit_code(), 143);
    assert_eq!(done.ended.exception, "exec: task 0 ended and exit-timeout=0.1s has expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_gives_the_same_job_again() {
    let instance = Instance::start(2, true).await;
    let jobspec = command(&["true"]).jobspec().expect("a jobspec").to_string();
    let submit =
        || async { instance.jobs().submit(jobspec.clone(), "t-000042".into()).await.expect("submitted") };
    let id = submit().await;
    assert_eq!(submit().await, id);
    instance.finish(id).await;
    assert_eq!(submit().await, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_go_on_without_the_leader_and_run_once() {
    let mut instance = Instance::start(2, true).await;
    let id = instance.submit(sh("echo begin >> trace; echo one; while [ ! -e go ]; do sleep 0.02; done; echo two; echo end >> trace")).await;
    instance.file("trace").await;
    instance.stop_leader().await;
    std::fs::write(instance.path("go"), "").expect("a file");
    while !instance.file("trace").await.ends_with("end\n") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    instance.start_leader().await;
    let done = instance.finish(id).await;
    assert_eq!((done.exit_code(), done.text(Stream::Stdout).as_str()), (0, "one\ntwo\n"));
    assert_eq!(instance.file("trace").await, "begin\nend\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_beyond_the_window_waits_for_the_leader_and_is_whole() {
    let mut instance = Instance::start(2, true).await;
    let script = "echo > begun; while [ ! -e go ]; do sleep 0.02; done; head -c 6000000 /dev/zero | tr '\\0' x; echo; echo > written";
    let id = instance.submit(sh(script)).await;
    instance.file("begun").await;
    instance.stop_leader().await;
    std::fs::write(instance.path("go"), "").expect("a file");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!instance.path("written").exists(), "the task waits in its write");
    instance.start_leader().await;
    assert_eq!(instance.finish(id).await.text(Stream::Stdout).len(), 6_000_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_agent_fails_its_jobs_and_a_repeat_of_the_key_runs_again() {
    let mut instance = Instance::start(3, true).await;
    let jobspec = sh("echo x >> runs; [ -e again ] || exec sleep 100");
    let cwd = instance.dir.path().display().to_string();
    let jobspec = NewJob { cwd, ..jobspec }.jobspec().expect("a jobspec").to_string();
    let jobs = Jobs::new(instance.socket(0));
    let id = jobs.submit(jobspec.clone(), "t-1".into()).await.expect("submitted");
    instance.file("runs").await;
    std::fs::write(instance.path("again"), "").expect("a file");
    for member in instance.members.drain(..) {
        member.drain(Duration::ZERO).await;
    }
    for rank in 1..3 {
        instance.start_member(rank).await;
    }
    let lost = jobs.wait(id).await.expect("it ends");
    assert!(lost.exception.starts_with("node-lost: "), "{lost:?}");
    let repeat = jobs.submit(jobspec, "t-1".into()).await.expect("submitted");
    assert_ne!(repeat, id);
    assert_eq!(jobs.wait(repeat).await.expect("it ends").exit_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_opened_fails_the_job() {
    let instance = Instance::start(3, true).await;
    for nodes in 1..3 {
        let job = with_option(
            on_nodes(nodes, sh("echo > ran")),
            "output.stdout",
            json!({"type": "file", "path": "missing/o.txt"}),
        );
        let done = instance.run(job).await;
        assert_eq!(done.exit_code(), 1, "{:?}", done.ended);
        assert!(
            done.ended.exception.contains("missing/o.txt: No such file or directory"),
            "{:?}",
            done.ended
        );
        assert!(!instance.path("ran").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_to_a_member_is_answered_by_the_next_leader() {
    let mut instance = Instance::start(2, true).await;
    let id = instance.submit(sh("echo > begun; while [ ! -e go ]; do sleep 0.02; done")).await;
    // A fork of this very process would hold the old leader's socket for a moment.
    instance.file("begun").await;
    let client = kiln_net::Client::connect_unix(instance.socket(1)).await.expect("a connection");
    let asking = tokio::spawn(async move {
        let request = Request::Events { id, log: crate::proto::LogName::Exec, from: 1000, wait_ms: 30_000 };
        client.call::<_, crate::proto::Answer>(&request).await
    });
    instance.ask(Request::Stats).await;
    instance.stop_leader().await;
    instance.start_leader().await;
    std::fs::write(instance.path("go"), "").expect("a file");
    let answer = asking.await.expect("joined").expect("the member stays");
    assert!(matches!(answer, Ok(Reply::Events { finished: true, .. })), "{answer:?}");
}

/// This test program as a task: the test of this name, whose settings are in the environment.
fn itself(test: &str) -> NewJob {
    let program = std::env::current_exe().expect("its path").display().to_string();
    command(&[&program, "--exact", &format!("broker::tests::{test}"), "--nocapture", "--quiet"])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ranks_put_is_seen_on_all_nodes_after_the_barrier() {
    let instance = Instance::start(3, false).await;
    let done = instance.run(NewJob { ntasks: 6, nodes: Some(3), ..itself("as_pmi_task") }).await;
    assert_eq!(done.exit_code(), 0, "{}{}", done.text(Stream::Stdout), done.text(Stream::Stderr));
    let sums = done.text(Stream::Stdout).lines().filter(|line| line.contains("sum 45 45 45")).count();
    assert_eq!(sums, 6, "{}", done.text(Stream::Stdout));
}

/// No test of its own: a task of the test above. Puts, meets the others, adds up what all put; three times.
#[test]
fn as_pmi_task() {
    if std::env::var_os(AS_TASK).is_none() {
        return;
    }
    let mut pmi = pmi::client::Client::from_environment().expect("init");
    let kvsname = pmi.kvsname().to_owned();
    let mut sums = Vec::new();
    for round in 0..3 {
        let own = pmi.rank() * 3;
        pmi.put(&kvsname, &format!("{round}-{}", pmi.rank()), &own.to_string()).expect("put");
        pmi.barrier().expect("barrier");
        let mut of = |rank| pmi.get(&kvsname, &format!("{round}-{rank}")).expect("get").expect("it is there");
        let sum: u32 = (0..6).map(|rank| of(rank).parse::<u32>().expect("a number")).sum();
        sums.push(sum.to_string());
    }
    assert_eq!(pmi.clique().expect("clique").len(), 2);
    println!("\nsum {}", sums.join(" "));
    pmi.finalize().expect("finalize");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_script_has_an_instance_of_its_own() {
    let instance = Instance::start(3, false).await;
    let job = on_nodes(2, itself("as_nested_broker"));
    let job = with_option(job, "per-resource", json!({"type": "node"}));
    let done = instance.run(with_option(job, "exit-timeout", json!("none"))).await;
    let text = done.text(Stream::Stdout);
    assert_eq!(done.exit_code(), 7, "{text}{}", done.text(Stream::Stderr));
    assert!(text.contains("script id= rank= level=1 size=2"), "{text}");
}

/// No test of its own: a broker of the nested instance of the test above, and, within that, its initial program.
#[tokio::test(flavor = "multi_thread")]
async fn as_nested_broker() {
    if std::env::var_os(AS_TASK).is_none() {
        return;
    }
    if std::env::var_os("PMI_FD").is_some() {
        let program = itself("as_nested_broker").command;
        let settings = NestedSettings {
            program,
            bin_dir: None,
            clock: Arc::new(RealClock::new()),
            rng: Arc::new(RealRng),
        };
        match nested(settings).await {
            Ok(code) => std::process::exit(i32::from(code)),
            Err(error) => panic!("{error}"),
        }
    }
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let uri = variable("FLUX_URI");
    let socket = uri.strip_prefix("local://").expect("the nested instance's socket");
    let reply = Jobs::new(socket).ask(&Request::Attributes).await.expect("attributes");
    let Reply::Attributes(attributes) = reply else { panic!("not attributes: {reply:?}") };
    let attribute = |name: &str| {
        attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    println!(
        "\nscript id={} rank={} level={} size={}",
        variable("FLUX_JOB_ID"),
        variable("FLUX_TASK_RANK"),
        attribute("instance-level"),
        attribute("size"),
    );
    std::process::exit(7);
}
