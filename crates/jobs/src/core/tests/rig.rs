//! A manager with simulated agents and a log in memory.

use super::*;
use crate::proto::{Hello, PROTOCOL, Running, ShellReport, ShellStart};

const CORES: &str = "0-1";

/// What an agent knows of a job: the reports that are not acknowledged, and whether its tasks still run.
pub(super) struct SimShell {
    pub(super) start: ShellStart,
    pub(super) reports: Vec<ShellEvent>,
    pub(super) acked: u64,
    pub(super) ended: bool,
}

pub(super) struct SimAgent {
    pub(super) boot: u64,
    pub(super) connected: bool,
    pub(super) shells: BTreeMap<JobId, SimShell>,
    /// Signals received, for tests to look at.
    pub(super) signals: Vec<(JobId, i32)>,
    pub(super) exchanged: Vec<Exchange>,
}

/// A manager, its log and its agents.
pub(super) struct Rig {
    pub(super) config: Config,
    pub(super) manager: Manager,
    pub(super) log: Vec<Stamped>,
    /// What is before this is gone from the log.
    pub(super) start: usize,
    pub(super) now: Timestamp,
    pub(super) agents: Vec<SimAgent>,
    pub(super) answers: HashMap<Caller, Answer>,
    pub(super) callers: u64,
    pub(super) boots: u64,
}

impl Rig {
    pub(super) fn new(nodes: u32) -> Self {
        Self::with(nodes, ArchiveLimits::default())
    }

    pub(super) fn with_archive(archive: ArchiveLimits) -> Self {
        Self::with(2, archive)
    }

    fn with(nodes: u32, archive: ArchiveLimits) -> Self {
        let node = |rank| NodeConfig {
            rank: Rank(rank),
            host: format!("n{rank}"),
            cores: CORES.parse().unwrap(),
            excluded: false,
        };
        let config = Config { nodes: (0..nodes).map(node).collect(), archive, ..Config::default() };
        let agent = |boot| SimAgent {
            boot,
            connected: false,
            shells: BTreeMap::new(),
            signals: Vec::new(),
            exchanged: Vec::new(),
        };
        let mut rig = Self {
            manager: Manager::new(config.clone()),
            config,
            log: Vec::new(),
            start: 0,
            now: Timestamp::from_millis(1_000_000),
            agents: (0..u64::from(nodes)).map(agent).collect(),
            answers: HashMap::new(),
            callers: 0,
            boots: 100,
        };
        let effects = rig.manager.resume(rig.now);
        rig.carry_out(effects);
        (0..nodes).for_each(|rank| rig.connect(rank));
        rig
    }

    pub(super) fn step(&mut self, input: Input) {
        let effects = self.manager.step(input, self.now);
        self.carry_out(effects);
    }

    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append(stamped) => self.log.push(stamped),
                Effect::Reply { to, answer } => {
                    assert!(self.answers.insert(to, answer).is_none(), "answered twice");
                }
                Effect::Lookup(lookup) => {
                    let span = lookup.span.first.0 as usize..=lookup.span.last.0 as usize;
                    assert!(*span.start() >= self.start, "records that are looked up are kept");
                    let answer = lookup.answer(self.log[span].to_vec());
                    assert!(self.answers.insert(lookup.to, answer).is_none(), "answered twice");
                }
                Effect::Send { rank, message } => self.deliver(rank, message),
                Effect::Trim(start) => self.start = self.start.max(start.0 as usize),
            }
        }
        assert_eq!(self.manager.next_offset().0, self.log.len() as i64);
    }

    pub(super) fn deliver(&mut self, rank: Rank, message: ToAgent) {
        let agent = &mut self.agents[rank.0 as usize];
        if !agent.connected {
            return;
        }
        match message {
            ToAgent::Start(start) => {
                let shell = SimShell { start: *start.clone(), reports: Vec::new(), acked: 0, ended: false };
                assert!(agent.shells.insert(start.job, shell).is_none(), "started twice");
            }
            ToAgent::Acked { job, next } => {
                if let Some(shell) = agent.shells.get_mut(&job) {
                    shell.acked = next;
                    if shell.ended && next == shell.reports.len() as u64 {
                        agent.shells.remove(&job);
                    }
                }
            }
            ToAgent::Kill { job, signal } => agent.signals.push((job, signal)),
            ToAgent::Forget { job } => drop(agent.shells.remove(&job)),
            ToAgent::Exchanged(exchange) => agent.exchanged.push(exchange),
            ToAgent::Refused(why) => panic!("refused: {why}"),
            ToAgent::Welcome { .. } | ToAgent::Stdin { .. } => {}
        }
    }

    pub(super) fn ask(&mut self, request: Request) -> Caller {
        self.callers += 1;
        let caller = Caller(self.callers);
        self.step(Input::Request { caller, userid: 0, request });
        caller
    }

    pub(super) fn answer(&mut self, request: Request) -> Answer {
        let caller = self.ask(request);
        self.answers.remove(&caller).expect("an answer at once")
    }

    pub(super) fn submit_as(&mut self, new: &NewJob, key: Option<&str>, flags: SubmitFlags) -> Answer {
        let jobspec = new.jobspec().unwrap().to_string();
        self.answer(Request::Submit(Box::new(Submit {
            jobspec,
            urgency: 16,
            flags,
            key: key.map(str::to_owned),
        })))
    }

    pub(super) fn submit(&mut self, new: &NewJob) -> JobId {
        match self.submit_as(new, None, SubmitFlags::default()) {
            Ok(Reply::Submitted { id, .. }) => id,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn row(&mut self, id: JobId) -> JobRow {
        match self.answer(Request::List(Filter { ids: vec![id], ..Filter::default() })) {
            Ok(Reply::Jobs(mut rows)) => rows.remove(0),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn events(&mut self, id: JobId, log: LogName) -> Vec<String> {
        match self.answer(Request::Events { id, log, from: 0, wait_ms: 0 }) {
            Ok(Reply::Events { entries, .. }) => entries.into_iter().map(|entry| entry.name).collect(),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn report(&mut self, rank: u32, job: JobId, events: Vec<ShellEvent>) {
        let agent = &mut self.agents[rank as usize];
        let Some(shell) = agent.shells.get_mut(&job) else { return };
        let first = shell.reports.len() as u64;
        shell.ended |= events.iter().any(|event| matches!(event, ShellEvent::Done { .. }));
        shell.reports.extend(events.clone());
        if agent.connected {
            self.send_reports(rank, job, first, events);
        }
    }

    pub(super) fn send_reports(&mut self, rank: u32, job: JobId, first: u64, events: Vec<ShellEvent>) {
        let at = self.now;
        let events = events.into_iter().map(|what| Timed { at, what }).collect();
        let message = FromAgent::Report(ShellReport { job, first, events });
        self.step(Input::Agent { rank: Rank(rank), message });
    }

    /// The tasks of a job on a rank start.
    pub(super) fn begin(&mut self, rank: u32, job: JobId) {
        let Some(shell) =
            self.agents[rank as usize].shells.get(&job).filter(|shell| shell.reports.is_empty())
        else {
            return;
        };
        let pids = shell.start.own().unwrap().tasks.iter().map(|task| 1000 + task).collect();
        self.report(rank, job, vec![ShellEvent::Init, ShellEvent::Started { pids }]);
    }

    /// The tasks of a job on a rank write a line each and end.
    pub(super) fn end(&mut self, rank: u32, job: JobId, wait_status: i32) {
        self.begin(rank, job);
        let Some(shell) = self.agents[rank as usize].shells.get(&job).filter(|shell| !shell.ended) else {
            return;
        };
        let mut events = Vec::new();
        for (localid, task) in (0..).zip(shell.start.own().unwrap().tasks.iter()) {
            let data = format!("task {task}\n").into_bytes().into();
            events.push(ShellEvent::Output(OutputEvent::Data {
                stream: Stream::Stdout,
                task,
                data,
                eof: true,
            }));
            events.push(ShellEvent::TaskExit { task, localid, pid: 1000 + task, wait_status });
        }
        events.push(ShellEvent::Done { wait_status });
        self.report(rank, job, events);
    }

    pub(super) fn end_everywhere(&mut self, job: JobId, wait_status: i32) {
        for rank in 0..self.agents.len() as u32 {
            self.begin(rank, job);
        }
        for rank in 0..self.agents.len() as u32 {
            self.end(rank, job, wait_status);
        }
    }

    pub(super) fn connect(&mut self, rank: u32) {
        let agent = &mut self.agents[rank as usize];
        if agent.connected {
            return;
        }
        agent.connected = true;
        let running =
            agent.shells.iter().map(|(&job, shell)| Running { job, next: shell.reports.len() as u64 });
        let hello = Hello {
            protocol: PROTOCOL,
            rank: Rank(rank),
            host: format!("n{rank}"),
            cores: CORES.parse().unwrap(),
            boot: agent.boot,
            running: running.collect(),
        };
        self.step(Input::Agent { rank: Rank(rank), message: FromAgent::Hello(hello) });
        let jobs: Vec<JobId> = self.agents[rank as usize].shells.keys().copied().collect();
        for job in jobs {
            let Some(shell) = self.agents[rank as usize].shells.get(&job) else { continue };
            let (first, events) = (shell.acked, shell.reports[shell.acked as usize..].to_vec());
            if !events.is_empty() {
                self.send_reports(rank, job, first, events);
            }
        }
    }

    pub(super) fn disconnect(&mut self, rank: u32) {
        if std::mem::take(&mut self.agents[rank as usize].connected) {
            self.step(Input::AgentGone(Rank(rank)));
        }
    }

    /// The agent's process dies, its tasks with it, and comes back as a new one.
    pub(super) fn crash_agent(&mut self, rank: u32) {
        self.disconnect(rank);
        self.boots += 1;
        let agent = &mut self.agents[rank as usize];
        agent.boot = self.boots;
        agent.shells.clear();
        self.connect(rank);
    }

    pub(super) fn replayed(&self) -> Manager {
        let mut manager = Manager::new(self.config.clone());
        manager.begin_at(kiln_types::Offset(self.start as i64));
        for (offset, stamped) in (0..).map(kiln_types::Offset).zip(self.log.clone()).skip(self.start) {
            manager.replay(offset, stamped).expect("our own records");
        }
        manager.replayed().expect("a checkpoint");
        manager
    }

    /// The leader dies and comes back with what is on disk.
    pub(super) fn crash_leader(&mut self) {
        self.manager = self.replayed();
        for agent in &mut self.agents {
            agent.connected = false;
        }
        let effects = self.manager.resume(self.now);
        self.carry_out(effects);
        (0..self.agents.len() as u32).for_each(|rank| self.connect(rank));
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        while let Some(at) = self.manager.wake_at().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            self.step(Input::Tick);
        }
        self.now = until;
    }

    /// Whether a job goes when the log is shortened.
    pub(super) fn is_forgotten(&mut self, id: JobId, before: kiln_types::Offset) -> bool {
        let submitted = |stamped: &Stamped| matches!(&stamped.record, Record::Submitted(new) if new.id == id);
        let first = self.log.iter().position(submitted).expect("it was submitted");
        self.row(id).state == JobState::Inactive && (first as i64) < before.0
    }

    pub(super) fn assert_replay_is_the_same(&self) {
        assert_eq!(self.replayed().knowledge(), self.manager.knowledge());
    }
}
