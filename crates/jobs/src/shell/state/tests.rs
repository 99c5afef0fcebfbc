//! A shell without processes: what it is told, what it wants done, what it reports.

use std::path::Path;

use kiln_types::{JobId, Rank};
use pmi::wire::Request;
use serde_json::{Value, json};

use super::*;
use crate::spec::build::NewJob;

const NOW: Timestamp = Timestamp(1_000_000);

fn start(nodes: u32, node: u32, options: &[(&str, Value)]) -> ShellStart {
    let job = NewJob {
        command: vec!["true".into()],
        ntasks: nodes,
        cores_per_task: 1,
        nodes: Some(nodes),
        cwd: "/w".into(),
        options: options.iter().map(|(path, value)| ((*path).to_owned(), value.clone())).collect(),
        ..NewJob::default()
    };
    let shell_node = |rank: u32| ShellNode {
        rank: Rank(rank),
        host: format!("n{rank}"),
        cores: IdSet::range(0..=1),
        tasks: IdSet::range(rank..=rank),
    };
    ShellStart {
        job: JobId::new(58),
        userid: 0,
        jobspec: job.jobspec().expect("a jobspec").to_string(),
        r: String::new(),
        nodes: (0..nodes).map(shell_node).collect(),
        node,
    }
}

fn begin(start: &ShellStart) -> (Shell, Vec<Effect>) {
    Shell::begin(start, NOW, &Surroundings::default(), Path::new("/tmp/t")).expect("a shell")
}

/// The names of what was reported and not yet taken.
fn said(shell: &mut Shell) -> Vec<String> {
    let report = shell.outbox.take(JobId::new(58));
    report.into_iter().flat_map(|report| report.events).map(|event| name(&event.what)).collect()
}

fn name(event: &ShellEvent) -> String {
    match event {
        ShellEvent::Init => "init".into(),
        ShellEvent::Started { pids } => format!("started {pids:?}"),
        ShellEvent::Output(OutputEvent::Data { eof, .. }) => format!("data eof={eof}"),
        ShellEvent::Output(OutputEvent::Redirect { tasks, path, .. }) => format!("redirect {tasks} {path}"),
        ShellEvent::Output(OutputEvent::Log { text, .. }) => format!("log {text}"),
        ShellEvent::TaskExit { task, wait_status, .. } => format!("exit {task} {wait_status}"),
        ShellEvent::Exception { note, wait_status, .. } => format!("exception {note} {wait_status}"),
        ShellEvent::Done { wait_status } => format!("done {wait_status}"),
    }
}

fn ends(shell: &mut Shell, task: u32) {
    for stream in [Stream::Stdout, Stream::Stderr] {
        assert!(shell.output(NOW, task, stream, &Bytes::new(), true).is_empty(), "it has not exited");
    }
}

#[test]
fn a_job_is_done_when_its_task_has_exited_and_its_streams_ended() {
    let (mut shell, effects) = begin(&start(1, 0, &[]));
    assert!(matches!(effects.as_slice(), [Effect::Launch(plan)] if plan.tasks.len() == 1 && plan.pmi));
    assert!(shell.launched(NOW, vec![(0, 77, None)], None, None).is_empty());
    ends(&mut shell, 0);
    let effects = shell.exited(NOW, 0, 3 << 8);
    assert!(matches!(effects.as_slice(), [Effect::Clean(dir)] if dir == Path::new("/tmp/t/jobtmp-0-ƒ21")));
    assert_eq!(
        said(&mut shell),
        ["init", "started [77]", "data eof=true", "data eof=true", "exit 0 768", "done 768"]
    );
    assert!(!shell.is_through(), "nothing is acknowledged");
    shell.outbox.acknowledged(6);
    assert!(shell.is_through());
}

#[test]
fn a_signal_before_the_start_is_sent_after_it() {
    let (mut shell, _) = begin(&start(1, 0, &[]));
    assert!(shell.kill(NOW, 15).is_empty());
    let effects = shell.launched(NOW, vec![(0, 77, None)], None, None);
    assert!(matches!(effects.as_slice(), [Effect::Signal(groups, 15)] if groups == &[77]));
    ends(&mut shell, 0);
    shell.exited(NOW, 0, 15);
    assert!(shell.kill(NOW, 9).is_empty(), "nothing is left to kill");
}

#[test]
fn nodes_wait_for_the_first_to_begin_the_shared_file() {
    let file = [("output.stdout", json!({"type": "file", "path": "{{id}}.txt"}))];
    let (mut first, effects) = begin(&start(2, 0, &file));
    assert!(
        matches!(effects.as_slice(), [Effect::Truncate(paths)] if paths == &[PathBuf::from("/w/ƒ21.txt")])
    );
    assert!(matches!(first.truncated(NOW, Ok(())).as_slice(), [Effect::Exchange(FILES_ROUND, _)]));
    assert_eq!(said(&mut first), ["init", "redirect 0-1 ƒ21.txt", "redirect 0-1 ƒ21.txt"]);

    let (mut second, effects) = begin(&start(2, 1, &file));
    assert!(matches!(effects.as_slice(), [Effect::Exchange(FILES_ROUND, _)]));
    assert_eq!(second.resend().len(), 1, "a leader that restarts must hear it again");
    assert!(matches!(second.exchanged(FILES_ROUND, Pairs::new()).as_slice(), [Effect::Launch(_)]));
    assert!(second.exchanged(FILES_ROUND, Pairs::new()).is_empty(), "a repeat starts nothing");
    assert_eq!(said(&mut second), ["init"]);
}

#[test]
fn a_job_that_is_ended_while_its_nodes_wait_starts_nothing() {
    let file = [("output.stdout", json!({"type": "file", "path": "all.txt"}))];
    let (mut shell, _) = begin(&start(2, 1, &file));
    assert!(matches!(shell.kill(NOW, 15).as_slice(), [Effect::Clean(_)]));
    assert!(shell.exchanged(FILES_ROUND, Pairs::new()).is_empty());
    assert_eq!(said(&mut shell), ["init", "done 0"]);
}

#[test]
fn a_task_that_does_not_start_fails_the_job() {
    let (mut shell, _) = begin(&start(1, 0, &[]));
    let error = StartError {
        task: 0,
        host: "vm".into(),
        what: "nosuchcommand".into(),
        reason: "No such file or directory".into(),
        code: 127,
    };
    let effects = shell.launched(NOW, Vec::new(), Some(&error), None);
    assert!(matches!(effects.as_slice(), [Effect::Clean(_)]));
    let note = "task 0 (host vm): start failed: nosuchcommand: No such file or directory";
    assert_eq!(
        said(&mut shell),
        [
            "init".to_owned(),
            format!("log {note}"),
            format!("exception {note} 32512"),
            "done 32512".to_owned()
        ]
    );
}

#[test]
fn an_abort_of_a_task_is_an_exception_of_the_job() {
    let (mut shell, _) = begin(&start(1, 0, &[]));
    shell.launched(NOW, vec![(0, 77, None)], None, None);
    let (answer, mut answered) = oneshot::channel();
    shell.asked(NOW, 0, Asked { request: Request::Abort { exitcode: 7 }, answer });
    assert!(answered.try_recv().is_err(), "an abort has no answer");
    assert_eq!(said(&mut shell).last().map(String::as_str), Some("exception PMI_Abort: aborted 15"));
}

#[test]
fn nonsense_is_refused_in_the_words_of_a_job() {
    let mut nonsense = start(1, 0, &[]);
    nonsense.jobspec = "{}".into();
    let Err(mut outbox) = Shell::begin(&nonsense, NOW, &Surroundings::default(), Path::new("/tmp")) else {
        panic!("it is no jobspec")
    };
    let report = outbox.take(JobId::new(58)).expect("a report");
    assert!(matches!(
        report.events.last().map(|event| &event.what),
        Some(ShellEvent::Done { wait_status: 256 })
    ));
    nonsense.node = 9;
    assert!(Shell::begin(&nonsense, NOW, &Surroundings::default(), Path::new("/tmp")).is_err());
}
