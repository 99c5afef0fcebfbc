//! Random histories of the manager, its agents and their losses.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Submit { ntasks: u32, nodes: Option<u32>, after: Option<usize> },
    Cancel(usize),
    Begin { rank: u32, job: usize },
    End { rank: u32, job: usize, code: i32 },
    Disconnect(u32),
    Connect(u32),
    CrashAgent(u32),
    CrashLeader,
    Drain(u32),
    Undrain(u32),
    Shorten(i64),
    Pass(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let rank = || 0u32..3;
    let job = || 0usize..12;
    let one = prop_oneof![
        4 => (1u32..8, proptest::option::of(1u32..4), proptest::option::weighted(0.2, job()))
            .prop_map(|(ntasks, nodes, after)| Op::Submit { ntasks, nodes: nodes.filter(|&nodes| nodes <= ntasks), after }),
        1 => job().prop_map(Op::Cancel),
        2 => (rank(), job()).prop_map(|(rank, job)| Op::Begin { rank, job }),
        6 => (rank(), job(), 0i32..3).prop_map(|(rank, job, code)| Op::End { rank, job, code }),
        1 => rank().prop_map(Op::Disconnect),
        1 => rank().prop_map(Op::Connect),
        1 => rank().prop_map(Op::CrashAgent),
        1 => Just(Op::CrashLeader),
        1 => rank().prop_map(Op::Drain),
        1 => rank().prop_map(Op::Undrain),
        1 => (0i64..100).prop_map(Op::Shorten),
        1 => (0u64..30).prop_map(Op::Pass),
    ];
    proptest::collection::vec(one, 0..60)
}

fn apply(rig: &mut Rig, jobs: &mut Vec<JobId>, op: &Op) {
    let at = |index: usize| jobs.get(index).copied();
    let only = |rank: u32| crate::proto::WhichNodes::Ranks(IdSet::range(rank..=rank));
    match *op {
        Op::Submit { ntasks, nodes, after: other } => {
            let dependencies = other.and_then(at).map(|id| ("afterany".to_owned(), id.to_string()));
            let new = NewJob { dependencies: dependencies.into_iter().collect(), ..tasks(ntasks, nodes) };
            jobs.push(rig.submit(&new));
        }
        Op::Cancel(job) => {
            if let Some(id) = at(job) {
                drop(rig.answer(Request::Raise {
                    id,
                    kind: "cancel".into(),
                    severity: 0,
                    note: String::new(),
                }));
            }
        }
        Op::Begin { rank, job } => at(job).into_iter().for_each(|id| rig.begin(rank, id)),
        Op::End { rank, job, code } => at(job).into_iter().for_each(|id| rig.end(rank, id, code << 8)),
        Op::Disconnect(rank) => rig.disconnect(rank),
        Op::Connect(rank) => rig.connect(rank),
        Op::CrashAgent(rank) => rig.crash_agent(rank),
        Op::CrashLeader => rig.crash_leader(),
        Op::Drain(rank) => drop(rig.answer(Request::Drain { nodes: only(rank), reason: String::new() })),
        Op::Undrain(rank) => drop(rig.answer(Request::Undrain { nodes: only(rank) })),
        Op::Shorten(percent) => {
            let before = kiln_types::Offset(rig.log.len() as i64 * percent / 100);
            // A job that is forgotten cannot be asked about any more.
            jobs.retain(|&id| !rig.is_forgotten(id, before));
            rig.step(Input::Shorten(before));
        }
        Op::Pass(seconds) => rig.pass(seconds),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever happens: the log says everything, no core is given out twice (asserted in the graph), every job comes
    /// to an end once its tasks do, each exactly once, and all cores are free then.
    #[test]
    fn every_job_ends_and_the_log_says_everything(ops in ops()) {
        let mut rig = Rig::new(3);
        let mut jobs = Vec::new();
        for op in ops {
            apply(&mut rig, &mut jobs, &op);
            rig.assert_replay_is_the_same();
        }
        for rank in 0..3 {
            rig.connect(rank);
            apply(&mut rig, &mut jobs, &Op::Undrain(rank));
        }
        for _ in 0..=jobs.len() {
            for &id in &jobs {
                rig.end_everywhere(id, 0);
            }
        }
        rig.pass(60);
        for &id in &jobs {
            prop_assert_eq!(rig.row(id).state, JobState::Inactive);
            let events = rig.events(id, LogName::Main);
            for once in ["alloc", "start", "finish", "release", "free", "clean"] {
                prop_assert!(events.iter().filter(|name| *name == once).count() <= 1, "{:?}", events);
            }
            prop_assert_eq!(events.last().map(String::as_str), Some("clean"));
        }
        let Ok(Reply::Nodes(nodes)) = rig.answer(Request::Resources) else { panic!() };
        prop_assert!(nodes.iter().all(|node| node.allocated.is_empty()));
        prop_assert!(rig.agents.iter().all(|agent| agent.shells.is_empty()));
    }
}
