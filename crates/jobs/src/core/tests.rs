//! The manager against simulated agents, with restarts and losses of both.

mod model;
mod rig;

use super::*;
use crate::{
    proto::{
        Answer, Exchange, FailureKind, Filter, FromAgent, InfoKey, JobResult, JobRow, JobState, LogName,
        OutputEvent, Reply, Request, ShellEvent, Stream, Submit, SubmitFlags, Timed, ToAgent,
    },
    spec::build::NewJob,
};
use kiln_types::{IdSet, JobId, Rank, Timestamp};
use rig::Rig;
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

fn tasks(ntasks: u32, nodes: Option<u32>) -> NewJob {
    NewJob {
        command: vec!["true".into()],
        ntasks,
        nodes,
        cores_per_task: 1,
        cwd: "/".into(),
        ..NewJob::default()
    }
}

fn after(scheme: &str, id: JobId) -> NewJob {
    NewJob { dependencies: vec![(scheme.into(), id.to_string())], ..tasks(1, None) }
}

const FLOW: [&str; 10] =
    ["submit", "validate", "depend", "priority", "alloc", "start", "finish", "release", "free", "clean"];

#[test]
fn a_job_passes_through_all_states() {
    let mut rig = Rig::new(2);
    let id = rig.submit(&tasks(4, Some(2)));
    assert_eq!(rig.row(id).state, JobState::Run);
    rig.end_everywhere(id, 0);
    let row = rig.row(id);
    assert_eq!(
        (row.state, row.result, row.waitstatus),
        (JobState::Inactive, Some(JobResult::Completed), Some(0))
    );
    assert_eq!((row.nodelist.as_str(), row.ntasks, row.ncores), ("n[0-1]", 4, Some(4)));
    assert_eq!(rig.events(id, LogName::Main), FLOW);
    assert_eq!(
        rig.events(id, LogName::Exec),
        [
            "init",
            "starting",
            "shell.init",
            "shell.start",
            "shell.task-exit",
            "shell-exit",
            "shell-exit",
            "complete",
            "done"
        ]
    );
    let Ok(Reply::Output { pieces, finished: true }) =
        rig.answer(Request::Output { id, from: 1, wait_ms: 0 })
    else {
        panic!("no output")
    };
    assert_eq!(pieces.len(), 3);
    let Ok(Reply::Document(r)) = rig.answer(Request::Info { id, key: InfoKey::R }) else { panic!("no R") };
    assert!(r.contains(r#""rank": "0-1", "children": {"core": "0-1"}"#), "{r}");
    let pids = Ok(Reply::Document("n0:1000,n0:1001,n1:1002,n1:1003".into()));
    assert_eq!(rig.answer(Request::Info { id, key: InfoKey::Hostpids }), pids);
    rig.assert_replay_is_the_same();
}

#[test]
fn hostpids_are_known_once_all_tasks_run() {
    let mut rig = Rig::new(2);
    let id = rig.submit(&tasks(2, Some(2)));
    rig.begin(0, id);
    assert!(rig.answer(Request::Info { id, key: InfoKey::Hostpids }).is_err());
    rig.begin(1, id);
    let pids = Ok(Reply::Document("n0:1000,n1:1001".into()));
    assert_eq!(rig.answer(Request::Info { id, key: InfoKey::Hostpids }), pids);
}

#[test]
fn ids_begin_with_the_instance() {
    let mut rig = Rig::new(1);
    rig.now = Timestamp::from_millis(1_111_872);
    assert_eq!(rig.submit(&tasks(1, None)).to_string(), "ƒrJaHjMZ");
}

#[test]
fn an_unsatisfiable_job_fails_without_resources() {
    let mut rig = Rig::new(2);
    let id = rig.submit(&tasks(5, None));
    assert_eq!(
        rig.events(id, LogName::Main),
        ["submit", "validate", "depend", "priority", "exception", "clean"]
    );
    let row = rig.row(id);
    let raised = row.exception.unwrap();
    assert_eq!((row.result, raised.kind.as_str()), (Some(JobResult::Failed), "alloc"));
    assert!(raised.note.starts_with("unsatisfiable request: need 5 slot(s)"), "{}", raised.note);
}

#[test]
fn jobs_wait_for_their_turn() {
    let mut rig = Rig::new(1);
    let [first, wide, narrow] = [1, 2, 1].map(|count| rig.submit(&tasks(count, None)));
    assert_eq!(rig.row(narrow).state, JobState::Sched, "the wide one goes before");
    rig.answer(Request::Urgency { id: narrow, urgency: 20 }).unwrap();
    assert_eq!(rig.row(narrow).state, JobState::Run);
    rig.end_everywhere(first, 0);
    rig.end_everywhere(narrow, 0);
    assert_eq!(rig.row(wide).state, JobState::Run);
}

#[test]
fn urgency_0_holds() {
    let mut rig = Rig::new(1);
    let jobspec = tasks(1, None).jobspec().unwrap().to_string();
    let submit = Submit { jobspec, urgency: 0, flags: SubmitFlags::default(), key: None };
    let Ok(Reply::Submitted { id, .. }) = rig.answer(Request::Submit(Box::new(submit))) else { panic!() };
    assert_eq!((rig.row(id).state, rig.row(id).priority), (JobState::Sched, Some(0)));
    assert_eq!(rig.answer(Request::Urgency { id, urgency: 16 }), Ok(Reply::Urgency(0)));
    assert_eq!(rig.row(id).state, JobState::Run);
    assert_eq!(rig.answer(Request::Urgency { id, urgency: 1 }).unwrap_err().kind, FailureKind::State);
}

#[test]
fn cancel_ends_tasks_first_gently_then_not() {
    let mut rig = Rig::new(1);
    let id = rig.submit(&tasks(1, None));
    rig.begin(0, id);
    rig.answer(Request::Raise { id, kind: "cancel".into(), severity: 0, note: String::new() }).unwrap();
    assert_eq!(rig.agents[0].signals, [(id, 15)]);
    rig.pass(6);
    assert_eq!(rig.agents[0].signals, [(id, 15), (id, 9)]);
    rig.end(0, id, 9);
    assert_eq!(rig.row(id).result, Some(JobResult::Canceled));
    assert_eq!(rig.row(id).waitstatus, Some(9));
    rig.assert_replay_is_the_same();
}

#[test]
fn a_waiting_job_is_canceled_at_once() {
    let mut rig = Rig::new(1);
    rig.submit(&tasks(2, None));
    let id = rig.submit(&tasks(2, None));
    rig.answer(Request::Raise { id, kind: "cancel".into(), severity: 0, note: String::new() }).unwrap();
    assert_eq!(
        rig.events(id, LogName::Main),
        ["submit", "validate", "depend", "priority", "exception", "clean"]
    );
}

#[test]
fn the_time_limit_ends_a_job() {
    let mut rig = Rig::new(1);
    let id = rig.submit(&NewJob { duration: 2.0, ..tasks(1, None) });
    rig.pass(3);
    assert_eq!(rig.agents[0].signals, [(id, 14)]);
    rig.end(0, id, 14);
    let row = rig.row(id);
    assert_eq!(row.result, Some(JobResult::Timeout));
    assert_eq!(row.exception.unwrap().note, "resource allocation expired");
}

#[test]
fn a_command_that_does_not_start_fails_the_job() {
    let mut rig = Rig::new(2);
    let id = rig.submit(&tasks(2, Some(2)));
    let note = "task 0 (host n0): start failed: nope: No such file or directory".to_owned();
    let raised = ShellEvent::Exception { kind: "exec".into(), severity: 0, note, wait_status: 127 << 8 };
    rig.report(0, id, vec![raised, ShellEvent::Done { wait_status: 127 << 8 }]);
    assert_eq!(rig.agents[1].signals, [(id, 15)], "the other node's tasks are told to end");
    rig.end(1, id, 15);
    let row = rig.row(id);
    assert_eq!((row.result, row.waitstatus), (Some(JobResult::Failed), Some(15)), "143 is more than 127");
}

#[test]
fn dependencies() {
    let mut rig = Rig::new(1);
    let first = rig.submit(&tasks(1, None));
    let [ok, any, not] =
        ["afterok", "afterany", "afternotok"].map(|scheme| rig.submit(&after(scheme, first)));
    assert_eq!(rig.row(ok).state, JobState::Depend);
    assert_eq!(rig.row(ok).dependencies, [format!("after-success={first}")]);
    rig.end_everywhere(first, 1 << 8);
    assert_eq!(rig.row(any).state, JobState::Run);
    assert_eq!(rig.row(not).state, JobState::Run);
    let raised = rig.row(ok).exception.unwrap();
    assert_eq!(raised.kind, "dependency");
    assert_eq!(raised.note, format!("dependency after-success={first} can never be satisfied"));
    let refused = rig.submit_as(&after("afterok", first), None, SubmitFlags::default()).unwrap_err();
    assert_eq!(refused.text, format!("dependency: afterok: job {first} failed or was canceled"));
    let unknown = NewJob { dependencies: vec![("afterok".into(), "f999".into())], ..tasks(1, None) };
    let refused = rig.submit_as(&unknown, None, SubmitFlags::default()).unwrap_err();
    assert_eq!(refused.text, "dependency: afterok: id f999: job not found");
    rig.assert_replay_is_the_same();
}

#[test]
fn begin_time() {
    let mut rig = Rig::new(1);
    let at = rig.now.seconds_f64() + 2.0;
    let id =
        rig.submit(&NewJob { dependencies: vec![("begin-time".into(), at.to_string())], ..tasks(1, None) });
    rig.pass(1);
    assert_eq!(rig.row(id).state, JobState::Depend);
    rig.crash_leader();
    rig.pass(2);
    assert_eq!(rig.row(id).state, JobState::Run);
}

#[test]
fn a_key_recognises_a_repeat_unless_the_job_was_lost_with_its_node() {
    let mut rig = Rig::new(2);
    let submit = |rig: &mut Rig| match rig.submit_as(&tasks(1, None), Some("t-1"), SubmitFlags::default()) {
        Ok(Reply::Submitted { id, known }) => (id, known),
        other => panic!("{other:?}"),
    };
    let (first, known) = submit(&mut rig);
    assert!(!known);
    assert_eq!(submit(&mut rig), (first, true));
    rig.crash_agent(0);
    let row = rig.row(first);
    assert_eq!((row.result, row.exception.unwrap().kind.as_str()), (Some(JobResult::Failed), NODE_LOST));
    let (second, known) = submit(&mut rig);
    assert!(!known && second > first);
    rig.end_everywhere(second, 1 << 8);
    rig.crash_leader();
    assert_eq!(submit(&mut rig), (second, true), "a job that failed by itself is not repeated");
}

#[test]
fn a_node_that_comes_back_in_time_goes_on() {
    let mut rig = Rig::new(1);
    let id = rig.submit(&tasks(1, None));
    rig.begin(0, id);
    rig.disconnect(0);
    rig.end(0, id, 0);
    rig.pass(20);
    assert_eq!(rig.row(id).state, JobState::Run);
    rig.connect(0);
    assert_eq!(rig.row(id).result, Some(JobResult::Completed));
    assert!(rig.agents[0].shells.is_empty(), "the last report is acknowledged");
}

#[test]
fn a_node_that_stays_away_is_given_up_and_its_shells_are_forgotten() {
    let mut rig = Rig::new(2);
    let id = rig.submit(&tasks(2, Some(2)));
    rig.begin(0, id);
    rig.begin(1, id);
    rig.disconnect(1);
    rig.pass(30);
    assert!(rig.agents[0].signals.contains(&(id, 15)));
    rig.end(0, id, 15);
    assert_eq!(rig.row(id).exception.unwrap().note, "node n1 (rank 1) was lost");
    rig.connect(1);
    assert!(rig.agents[1].shells.is_empty(), "told to forget it");
}

#[test]
fn running_jobs_survive_the_leader() {
    let mut rig = Rig::new(2);
    let id = rig.submit(&tasks(2, Some(2)));
    rig.begin(0, id);
    rig.crash_leader();
    rig.begin(1, id);
    rig.end_everywhere(id, 0);
    assert_eq!(rig.row(id).result, Some(JobResult::Completed));
    assert_eq!(rig.events(id, LogName::Main), FLOW);
}

#[test]
fn a_start_that_never_arrived_is_sent_again() {
    let mut rig = Rig::new(1);
    rig.agents[0].connected = false; // the connection is broken, but the leader does not know yet
    let id = rig.submit(&tasks(1, None));
    rig.agents[0].connected = true;
    rig.disconnect(0);
    rig.connect(0);
    assert!(rig.agents[0].shells.contains_key(&id));
    rig.end_everywhere(id, 0);
    assert_eq!(rig.row(id).result, Some(JobResult::Completed));
}

#[test]
fn reports_that_come_twice_count_once() {
    let mut rig = Rig::new(1);
    let id = rig.submit(&tasks(1, None));
    rig.begin(0, id);
    let output = ShellEvent::Output(OutputEvent::Data {
        stream: Stream::Stdout,
        task: 0,
        data: b"x".as_slice().into(),
        eof: false,
    });
    rig.send_reports(0, id, 2, vec![output.clone()]);
    rig.send_reports(0, id, 2, vec![output.clone(), output.clone()]);
    rig.send_reports(0, id, 9, vec![output]);
    let Ok(Reply::Output { pieces, .. }) = rig.answer(Request::Output { id, from: 0, wait_ms: 0 }) else {
        panic!()
    };
    assert_eq!(pieces.len(), 2, "one twice, one beyond a gap");
}

#[test]
fn a_held_answer_comes_with_the_event() {
    let mut rig = Rig::new(1);
    let id = rig.submit(&tasks(1, None));
    let caller = rig.ask(Request::Events { id, log: LogName::Main, from: 6, wait_ms: 5_000 });
    assert_eq!(rig.answers.get(&caller), None);
    rig.end_everywhere(id, 0);
    let Some(Ok(Reply::Events { entries, finished: true })) = rig.answers.remove(&caller) else { panic!() };
    assert_eq!(entries[0].name, "finish");
    let id = rig.submit(&tasks(1, None));
    let late = rig.ask(Request::Output { id, from: 0, wait_ms: 1_000 });
    rig.pass(2);
    assert_eq!(rig.answers.remove(&late), Some(Ok(Reply::Output { pieces: vec![], finished: false })));
}

#[test]
fn old_output_comes_from_the_log() {
    let mut rig = Rig::new(1);
    let id = rig.submit(&tasks(1, None));
    rig.begin(0, id);
    let chunk = |byte: u8| {
        let data = vec![byte; 300_000].into();
        ShellEvent::Output(OutputEvent::Data { stream: Stream::Stdout, task: 0, data, eof: false })
    };
    for byte in 0..10 {
        rig.report(0, id, vec![chunk(byte)]);
    }
    let (mut from, mut seen) = (0, Vec::new());
    while seen.len() < 10 {
        let Ok(Reply::Output { pieces, finished: false }) =
            rig.answer(Request::Output { id, from, wait_ms: 0 })
        else {
            panic!()
        };
        assert!(!pieces.is_empty());
        from += pieces.len() as u64;
        seen.extend(pieces.into_iter().filter_map(|piece| match piece.what {
            OutputEvent::Data { data, .. } => Some(data.0[0]),
            _ => None,
        }));
    }
    assert_eq!(seen, (0..10).collect::<Vec<u8>>());
}

#[test]
fn waitable_jobs_are_waited_for_once() {
    let mut rig = Rig::new(1);
    let waitable = SubmitFlags { waitable: true, debug: false };
    let Ok(Reply::Submitted { id, .. }) = rig.submit_as(&tasks(1, None), None, waitable) else { panic!() };
    let caller = rig.ask(Request::Wait { id: None, wait_ms: 1_000 });
    rig.end_everywhere(id, 2 << 8);
    let Some(Ok(Reply::Waited(Some(waited)))) = rig.answers.remove(&caller) else { panic!() };
    assert_eq!(
        (waited.id, waited.success, waited.text.as_str()),
        (id, false, "task(s) exited with exit code 2")
    );
    rig.assert_replay_is_the_same();
    let text = |rig: &mut Rig, id| rig.answer(Request::Wait { id, wait_ms: 0 }).unwrap_err().text;
    assert_eq!(text(&mut rig, None), "there are no more waitable jobs");
    assert_eq!(text(&mut rig, Some(id)), "invalid job id, or job may be inactive and not waitable");
}

#[test]
fn pmi_barriers_end_when_all_are_in_also_across_a_restart() {
    let mut rig = Rig::new(2);
    let id = rig.submit(&tasks(2, Some(2)));
    let put = |rig: &mut Rig, rank: u32, round| {
        let pairs = vec![(format!("r{rank}-{round}"), "v".to_owned())];
        rig.step(Input::Agent {
            rank: Rank(rank),
            message: FromAgent::Exchange(Exchange { job: id, round, pairs }),
        });
    };
    put(&mut rig, 0, 0);
    assert!(rig.agents[0].exchanged.is_empty());
    put(&mut rig, 1, 0);
    assert_eq!(rig.agents[0].exchanged[0].pairs.len(), 2);
    assert_eq!(rig.agents[0].exchanged, rig.agents[1].exchanged);
    // Rank 0 was answered and is one ahead, rank 1 was not.
    rig.crash_leader();
    put(&mut rig, 0, 0);
    put(&mut rig, 0, 1);
    put(&mut rig, 1, 0);
    put(&mut rig, 1, 1);
    let rounds: Vec<u64> = rig.agents[1].exchanged.iter().map(|exchange| exchange.round).collect();
    assert_eq!(rounds, [0, 0, 1]);
}

#[test]
fn drained_nodes_get_no_jobs() {
    let mut rig = Rig::new(1);
    let nodes = || crate::proto::WhichNodes::Ranks(IdSet::range(0..=0));
    rig.answer(Request::Drain { nodes: nodes(), reason: "dusty".into() }).unwrap();
    assert_eq!(
        rig.answer(Request::Drain { nodes: nodes(), reason: String::new() }).unwrap_err().text,
        "rank 0 already drained"
    );
    let id = rig.submit(&tasks(1, None));
    assert_eq!(rig.row(id).state, JobState::Sched);
    rig.crash_leader();
    assert_eq!(rig.row(id).state, JobState::Sched);
    rig.answer(Request::Undrain { nodes: nodes() }).unwrap();
    assert_eq!(rig.row(id).state, JobState::Run);
    assert_eq!(rig.answer(Request::Undrain { nodes: nodes() }).unwrap_err().text, "rank 0 not drained");
}

#[test]
fn strangers_may_look_but_not_touch() {
    let mut rig = Rig::new(1);
    let id = rig.submit(&tasks(1, None));
    let mut as_stranger = |request| {
        let effects = rig.manager.step(Input::Request { caller: Caller(9), userid: 1000, request }, rig.now);
        effects.into_iter().find_map(|effect| match effect {
            Effect::Reply { answer, .. } => Some(answer),
            _ => None,
        })
    };
    let refused = Some(FailureKind::Permission);
    let kind = |answer: Option<Answer>| answer.and_then(Result::err).map(|failure| failure.kind);
    assert_eq!(
        kind(as_stranger(Request::Raise { id, kind: "cancel".into(), severity: 0, note: String::new() })),
        refused
    );
    assert_eq!(kind(as_stranger(Request::Kill { id, signal: 9 })), refused);
    assert_eq!(kind(as_stranger(Request::Scheduling { on: false })), refused);
    assert_eq!(kind(as_stranger(Request::Stats)), None);
}

#[test]
fn memory_of_ended_jobs_is_bounded_and_they_are_still_found() {
    let mut rig = Rig::with_archive(ArchiveLimits { rows_max: 2, jobs_max: 4 });
    let ids: Vec<JobId> = (0..5)
        .map(|_| {
            let id = rig.submit(&tasks(1, None));
            rig.end_everywhere(id, 0);
            id
        })
        .collect();
    let Ok(Reply::Jobs(rows)) = rig.answer(Request::List(Filter::default())) else { panic!() };
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [ids[4], ids[3]]);
    assert_eq!(rig.events(ids[1], LogName::Main), FLOW);
    assert!(rig.answer(Request::Info { id: ids[0], key: InfoKey::R }).is_err(), "forgotten altogether");
    rig.assert_replay_is_the_same();
}

#[test]
fn old_jobs_are_forgotten_and_the_rest_survives_a_restart() {
    let mut rig = Rig::with_archive(ArchiveLimits { rows_max: 4, jobs_max: 8 });
    let nodes = crate::proto::WhichNodes::Ranks("1".parse().unwrap());
    rig.answer(Request::Drain { nodes, reason: "dusty".into() }).unwrap();
    let mut jobs = Vec::new();
    for number in 0..30 {
        let key = format!("k{number}");
        let Ok(Reply::Submitted { id, .. }) =
            rig.submit_as(&tasks(1, None), Some(&key), SubmitFlags::default())
        else {
            panic!("it is submitted");
        };
        rig.end_everywhere(id, i32::from(number % 2 == 0) << 8);
        jobs.push(id);
    }
    assert!(rig.start > 0, "the log is shortened");
    for restarted in [false, true] {
        let Ok(Reply::Stats(stats)) = rig.answer(Request::Stats) else { panic!() };
        assert_eq!((stats.successful, stats.failed), (15, 15));
        let gone = rig.answer(Request::Info { id: jobs[0], key: InfoKey::Jobspec });
        assert_eq!(gone.unwrap_err().kind, FailureKind::NotFound);
        assert_eq!(rig.events(jobs[28], LogName::Main), FLOW);
        let Ok(Reply::Nodes(rows)) = rig.answer(Request::Resources) else { panic!() };
        assert_eq!(rows[1].drained.as_ref().map(|drained| drained.reason.as_str()), Some("dusty"));
        let mut again = |key| rig.submit_as(&tasks(1, None), Some(key), SubmitFlags::default());
        assert_eq!(again("k29"), Ok(Reply::Submitted { id: jobs[29], known: true }));
        let Ok(Reply::Submitted { id, known }) = again("k0") else { panic!() };
        assert_eq!(known, restarted, "the key went with its job, and now belongs to another one");
        assert!(id > jobs[29]);
        rig.crash_leader();
    }
}

#[test]
fn a_log_without_its_beginning_needs_a_checkpoint() {
    let mut manager = Manager::new(Config::default());
    let start = kiln_types::Offset(5);
    manager.begin_at(start);
    assert_eq!(manager.replayed(), Err(BadRecord::NoCheckpoint { start, end: start }));
}
