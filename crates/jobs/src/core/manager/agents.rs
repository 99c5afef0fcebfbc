//! What agents say, and what is said to them.

use super::{Effect, Manager, Timer, progress::exception, progress::shell_nodes};
use crate::{
    core::{
        archive::NODE_LOST,
        event::{AllocatedNode, ExecEvent},
        job::{Barriers, Job, Shell},
        record::{Record, Source},
    },
    proto::{Exchange, FromAgent, Hello, PROTOCOL, RaisedException, ShellEvent, ShellReport, Timed, ToAgent},
    spec::taskmap_json,
};
use kiln_types::{JobId, Rank, Timestamp};

/// How many barriers of one job may be open: after a leader's restart nodes report the one before, too.
const OPEN_BARRIERS_MAX: usize = 3;

/// Wait status of tasks that went away with their node: as if by SIGKILL.
const LOST_WAIT_STATUS: i32 = 9;

impl Manager {
    pub(super) fn agent_says(
        &mut self,
        rank: Rank,
        message: FromAgent,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        match message {
            FromAgent::Hello(hello) => self.hello(rank, &hello, now, effects),
            FromAgent::Report(report) => self.report(rank, report, now, effects),
            FromAgent::Exchange(exchange) => self.exchange(rank, exchange, effects),
        }
    }

    pub(super) fn agent_gone(&mut self, rank: Rank, now: Timestamp) {
        if self.graph.boot(rank).is_some() {
            self.graph.down(rank);
            self.timers.insert((now + self.config.node_grace, Timer::Lost(rank)));
        }
    }

    fn hello(&mut self, rank: Rank, hello: &Hello, now: Timestamp, effects: &mut Vec<Effect>) {
        let refused = if hello.protocol != PROTOCOL {
            Some(format!("this leader speaks protocol {PROTOCOL}, not {}", hello.protocol))
        } else if hello.rank != rank || !self.graph.has(rank) {
            Some(format!("there is no rank {} in this instance", hello.rank))
        } else {
            None
        };
        if let Some(why) = refused {
            effects.push(Effect::Send { rank, message: ToAgent::Refused(why) });
            return;
        }
        self.graph.up(rank, hello.boot, &hello.host, &hello.cores);
        self.timers.retain(|&(_, timer)| timer != Timer::Lost(rank));
        self.replan = true;
        let lease_ms = u32::try_from(self.config.lease.as_millis()).unwrap_or(u32::MAX);
        effects.push(Effect::Send { rank, message: ToAgent::Welcome { size: self.graph.size(), lease_ms } });
        self.settle_known_shells(rank, hello, now, effects);
        self.settle_missing_shells(rank, hello, now, effects);
    }

    /// For each shell that the agent has: go on, or forget it.
    fn settle_known_shells(&mut self, rank: Rank, hello: &Hello, now: Timestamp, effects: &mut Vec<Effect>) {
        for running in &hello.running {
            let job = running.job;
            let next = self.shell(job, rank).filter(|(_, shell)| !shell.done).map(|(_, shell)| shell.next);
            let message = next.map_or(ToAgent::Forget { job }, |next| ToAgent::Acked { job, next });
            effects.push(Effect::Send { rank, message });
            // What was sent to end it may be lost.
            if next.is_some() && self.active.get(&job).is_some_and(|job| job.fatal.is_some()) {
                self.timers.insert((now, Timer::Kill(job)));
            }
        }
    }

    /// For each shell that the agent should have and has not: start it if it never knew of it, else it is lost.
    fn settle_missing_shells(
        &mut self,
        rank: Rank,
        hello: &Hello,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let listed = |id: JobId| hello.running.iter().any(|running| running.job == id);
        for id in self.jobs_on(rank).into_iter().filter(|&id| !listed(id)) {
            let Some((node, shell)) = self.shell(id, rank) else { continue };
            let never_got_it = node.boot == hello.boot && shell.next == 0;
            let ends = self.active.get(&id).is_some_and(|job| job.fatal.is_some());
            if never_got_it && !ends {
                self.send_start(id, rank, effects);
            } else {
                self.lose_shell(id, rank, now, effects);
            }
        }
    }

    /// A node was away for too long.
    pub(super) fn give_up_node(&mut self, rank: Rank, now: Timestamp, effects: &mut Vec<Effect>) {
        for id in self.jobs_on(rank) {
            self.lose_shell(id, rank, now, effects);
        }
    }

    fn lose_shell(&mut self, id: JobId, rank: Rank, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(job) = self.active.get(&id) else { return };
        let Some(node) = job.allocation.as_ref().and_then(|allocation| allocation.place(rank)) else {
            return;
        };
        let host = job.allocation.iter().flat_map(|allocation| &allocation.nodes).nth(node as usize);
        let host = host.map_or_else(String::new, |node| node.host.clone());
        let ends = job.fatal.is_some();
        let exit = ExecEvent::ShellExit { node, wait_status: LOST_WAIT_STATUS };
        self.append_exec(now, id, exit, None, effects);
        if !ends {
            let raised = exception(NODE_LOST, format!("node {host} (rank {rank}) was lost"));
            self.raise(id, self.config.owner, raised, now, effects);
        }
    }

    /// Active jobs with a shell on this rank that is not done.
    fn jobs_on(&self, rank: Rank) -> Vec<JobId> {
        let here = |job: &&Job| self.shell(job.id(), rank).is_some_and(|(_, shell)| !shell.done);
        self.active.values().filter(here).map(Job::id).collect()
    }

    fn shell(&self, id: JobId, rank: Rank) -> Option<(&AllocatedNode, &Shell)> {
        let job = self.active.get(&id)?;
        let nodes = &job.allocation.as_ref()?.nodes;
        nodes.iter().zip(&job.shells).find(|(node, _)| node.rank == rank)
    }

    fn report(&mut self, rank: Rank, report: ShellReport, now: Timestamp, effects: &mut Vec<Effect>) {
        let ShellReport { job: id, first, events } = report;
        let known = self.shell(id, rank).map(|(_, shell)| (shell.next, shell.done));
        let node = self.active.get(&id).and_then(|job| job.allocation.as_ref()?.place(rank));
        let (Some((next, false)), Some(node)) = (known, node) else {
            effects.push(Effect::Send { rank, message: ToAgent::Forget { job: id } });
            return;
        };
        // A report that leaves a gap is not taken: the acknowledgement says from where to send again.
        if first <= next {
            for (seq, Timed { at: _, what }) in (first..).zip(events).filter(|(seq, _)| *seq >= next) {
                self.shell_event(id, Source { node, seq }, what, now, effects);
            }
        }
        let next = self.shell(id, rank).map_or(next, |(_, shell)| shell.next);
        effects.push(Effect::Send { rank, message: ToAgent::Acked { job: id, next } });
    }

    fn shell_event(
        &mut self,
        id: JobId,
        source: Source,
        event: ShellEvent,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(job) = self.active.get(&id) else { return };
        match event {
            ShellEvent::Init if source.node == 0 && !job.exec.shell_init => {
                let leader =
                    job.allocation.as_ref().map_or(Rank::LEADER, |allocation| allocation.nodes[0].rank);
                let event = ExecEvent::ShellInit { leader, size: job.shells.len() as u32 };
                self.append_exec(now, id, event, Some(source), effects);
            }
            ShellEvent::Init => self.append_seen(id, source, 0, now, effects),
            ShellEvent::Started { pids } => {
                self.append(now, Record::Pids { id, pids, source }, effects);
                self.note_all_started(id, now, effects);
            }
            ShellEvent::Output(event) => self.append(now, Record::Output { id, event, source }, effects),
            ShellEvent::TaskExit { task, localid, pid, wait_status } if !job.exec.task_exit => {
                let event = ExecEvent::TaskExit { localid, task, pid, wait_status };
                self.append_exec(now, id, event, Some(source), effects);
            }
            ShellEvent::TaskExit { wait_status, .. } => {
                self.append_seen(id, source, wait_status, now, effects);
            }
            ShellEvent::Exception { kind, severity, note, wait_status } => {
                self.append_seen(id, source, wait_status, now, effects);
                self.raise(id, self.config.owner, RaisedException { kind, severity, note }, now, effects);
            }
            ShellEvent::Done { wait_status } => {
                let event = ExecEvent::ShellExit { node: source.node, wait_status };
                self.append_exec(now, id, event, Some(source), effects);
            }
        }
    }

    fn append_seen(
        &mut self,
        id: JobId,
        source: Source,
        wait_status: i32,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.append(now, Record::Seen { id, source, wait_status }, effects);
    }

    fn note_all_started(&mut self, id: JobId, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(job) = self.active.get(&id) else { return };
        let Some(allocation) = job.allocation.as_ref().filter(|_| !job.exec.shell_start) else { return };
        let nodes = shell_nodes(job, allocation);
        let all =
            nodes.iter().zip(&job.shells).all(|(node, shell)| node.tasks.len() == shell.pids.len() as u64);
        if all {
            let taskmap = taskmap_json(nodes.iter().map(|node| &node.tasks));
            self.append_exec(now, id, ExecEvent::ShellStart { taskmap }, None, effects);
        }
    }

    /// A rank's tasks are in a PMI barrier.
    fn exchange(&mut self, rank: Rank, exchange: Exchange, effects: &mut Vec<Effect>) {
        let id = exchange.job;
        let Some(place) = self.active.get(&id).and_then(|job| job.allocation.as_ref()?.place(rank)) else {
            return;
        };
        let Some(job) = self.active.get_mut(&id) else { return };
        let size = job.shells.len();
        match job.barriers.enter(place as usize, size, exchange) {
            Entered::Waits => {}
            Entered::Late(round, pairs) => {
                effects.push(Effect::Send { rank, message: exchanged(id, round, pairs) });
            }
            Entered::All(round, pairs) => {
                let ranks =
                    job.allocation.iter().flat_map(|allocation| &allocation.nodes).map(|node| node.rank);
                effects.extend(
                    ranks.map(|rank| Effect::Send { rank, message: exchanged(id, round, pairs.clone()) }),
                );
            }
        }
    }
}

fn exchanged(job: JobId, round: u64, pairs: Vec<(String, String)>) -> ToAgent {
    ToAgent::Exchanged(Exchange { job, round, pairs })
}

enum Entered {
    /// Others are missing.
    Waits,
    /// This barrier is over already.
    Late(u64, Vec<(String, String)>),
    /// Nobody is missing.
    All(u64, Vec<(String, String)>),
}

impl Barriers {
    /// A node comes into a barrier, possibly again after a reconnect.
    fn enter(&mut self, place: usize, size: usize, exchange: Exchange) -> Entered {
        let Exchange { round, pairs, .. } = exchange;
        match &self.last {
            Some((last, all)) if round == *last => return Entered::Late(round, all.clone()),
            Some((last, _)) if round < *last => return Entered::Waits,
            _ => {}
        }
        let barrier = self.open.entry(round).or_default();
        barrier.present.resize(size, false);
        if !std::mem::replace(&mut barrier.present[place], true) {
            barrier.pairs.extend(pairs);
        }
        if barrier.present.contains(&false) {
            while self.open.len() > OPEN_BARRIERS_MAX {
                self.open.pop_last();
            }
            return Entered::Waits;
        }
        let all = std::mem::take(&mut barrier.pairs);
        self.open.retain(|&open, _| open > round);
        self.last = Some((round, all.clone()));
        Entered::All(round, all)
    }
}
