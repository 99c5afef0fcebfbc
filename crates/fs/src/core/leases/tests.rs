use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const C: SessionId = SessionId(3);
const FILE: Ino = Ino(7);
const DIR: Ino = Ino(8);
const NOW: Duration = Duration::ZERO;
const META: Leases = Leases { meta: true, names: false, data: DataLease::None };

fn data(mode: DataLease) -> Leases {
    Leases { data: mode, ..Leases::default() }
}

fn table() -> LeaseTable {
    let mut table = LeaseTable::new(100, 1000);
    for session in [A, B, C] {
        table.join(session);
    }
    table
}

fn ack(callback: &Callback) -> Acked {
    Acked { seq: callback.seq, ino: callback.ino, open: false }
}

fn names(table: &mut LeaseTable, session: SessionId, known: &[&str]) -> bool {
    table.grant_names(session, DIR, &known.iter().map(|name| name.as_bytes()), None).is_some()
}

/// Sends what `touch` needs back, as `session`.
fn call(table: &mut LeaseTable, session: SessionId, ino: Ino, touch: Touch) -> Vec<(SessionId, Callback)> {
    let conflicts = table.conflicts(session, &[(ino, touch)]);
    table.call(&conflicts, NOW)
}

#[test]
fn a_callback_goes_to_others_only_and_once() {
    let mut table = table();
    for session in [A, B, C] {
        assert!(table.grant(session, FILE, META, None).is_some());
    }
    let sent = call(&mut table, A, FILE, Touch::Meta);
    assert_eq!(sent.iter().map(|(session, _)| *session).collect::<Vec<_>>(), [B, C]);
    assert_eq!(sent.iter().map(|(_, callback)| callback.seq).collect::<Vec<_>>(), [101, 102]);
    assert_eq!(call(&mut table, A, FILE, Touch::Meta), []);
    assert_eq!(table.ack(B, ack(&sent[0].1)), Some(Take::Meta));
    assert_eq!(table.ack(B, ack(&sent[0].1)), None, "a repeat says nothing");
    assert_eq!(table.conflicts(A, &[(FILE, Touch::Meta)]).len(), 1);
    table.ack(C, ack(&sent[1].1));
    assert_eq!(table.conflicts(A, &[(FILE, Touch::Meta)]), []);
    assert_eq!(table.held(A, FILE), META);
}

#[test]
fn one_name_is_taken_and_the_others_stay() {
    let mut table = table();
    assert!(names(&mut table, B, &["a", "b"]));
    let sent = call(&mut table, A, DIR, Touch::Name(b"a".to_vec()));
    assert_eq!(sent[0].1.take, Take::Name(b"a".to_vec()));
    let second = call(&mut table, A, DIR, Touch::Name(b"b".to_vec()));
    assert_eq!(second[0].1.take, Take::Name(b"b".to_vec()), "another name is another callback");
    table.ack(B, ack(&sent[0].1));
    table.ack(B, ack(&second[0].1));
    assert_eq!(call(&mut table, A, DIR, Touch::Name(b"a".to_vec())), []);
    assert_eq!(call(&mut table, A, DIR, Touch::Name(b"c".to_vec())).len(), 1);
    assert!(names(&mut table, B, &["a"]));
    assert_eq!(call(&mut table, A, DIR, Touch::Name(b"a".to_vec())).len(), 1, "looked up again");
}

#[test]
fn a_directory_that_others_fill_costs_its_reader_a_bounded_number_of_callbacks() {
    let mut table = table();
    assert!(names(&mut table, B, &["x"]));
    let mut sent = 0;
    for n in 0..1000 {
        for (_, callback) in call(&mut table, A, DIR, Touch::Name(format!("{n}").into_bytes())) {
            sent += 1;
            table.ack(B, ack(&callback));
        }
    }
    assert!((2..100).contains(&sent), "{sent}");
    assert!(!table.held(B, DIR).names);
}

#[test]
fn data_goes_down_to_what_goes_along() {
    use DataLease::{Direct, None, Read, Write};
    let cases = [
        (Write, Read, Read),
        (Write, Direct, None),
        (Write, Write, None),
        (Read, Direct, None),
        (Direct, Read, None),
    ];
    for (held, wanted, left) in cases {
        let mut table = table();
        table.grant(B, FILE, data(held), Option::None);
        let sent = call(&mut table, A, FILE, Touch::Data(wanted));
        assert_eq!(sent[0].1.take, Take::Data(left), "{held:?} beside {wanted:?}");
        assert!(!table.grants(A, FILE, data(wanted), Option::None));
        table.ack(B, ack(&sent[0].1));
        assert_eq!(table.held(B, FILE).data, left);
        assert!(table.grants(A, FILE, data(wanted), Option::None));
    }
    for mode in [Read, Direct] {
        let mut table = table();
        table.grant(B, FILE, data(mode), Option::None);
        assert_eq!(call(&mut table, A, FILE, Touch::Data(mode)), []);
        assert_eq!(call(&mut table, A, FILE, Touch::Size), []);
    }
}

#[test]
fn a_lesser_callback_does_not_cover_a_greater_one() {
    let mut table = table();
    table.grant(B, FILE, data(DataLease::Write), None);
    let read = call(&mut table, A, FILE, Touch::Size);
    let none = call(&mut table, A, FILE, Touch::Data(DataLease::Write));
    assert_eq!((read.len(), none.len()), (1, 1));
    assert_eq!(call(&mut table, A, FILE, Touch::Size), [], "the greater one covers the lesser one");
    table.ack(B, ack(&none[0].1));
    assert_eq!(table.conflicts(A, &[(FILE, Touch::Data(DataLease::Write))]), []);
    table.ack(B, ack(&read[0].1));
    assert_eq!(table.held(B, FILE).data, DataLease::None);
}

#[test]
fn who_waits_is_not_overtaken() {
    let mut table = table();
    table.grant(B, FILE, META, None);
    let touches = [(FILE, Touch::Meta), (FILE, Touch::Data(DataLease::Write))];
    let ticket = table.wait(None, A, &touches).expect("room");
    assert_eq!(table.grant(C, FILE, META, None), None);
    assert!(!table.grants(C, FILE, data(DataLease::Read), None));
    assert!(table.grants(A, FILE, data(DataLease::Read), None), "its own session's requests go on");
    let later = table.wait(None, C, &[(FILE, Touch::Data(DataLease::Write))]).expect("room");
    assert!(!table.grants(C, FILE, data(DataLease::Write), Some(later)));
    table.release(B, FILE, META);
    assert!(table.grants(A, FILE, data(DataLease::Write), Some(ticket)), "the later one is not in its way");
    table.leave(ticket);
    assert!(table.grants(C, FILE, data(DataLease::Write), Some(later)));
}

#[test]
fn what_is_being_called_back_is_not_granted_again() {
    let mut table = table();
    table.grant(B, FILE, Leases { meta: true, names: false, data: DataLease::Read }, None);
    let sent = call(&mut table, A, FILE, Touch::Meta);
    assert_eq!(table.grant(B, FILE, META, None), None);
    table.ack(B, ack(&sent[0].1));
    assert_eq!(table.grant(B, FILE, META, None).map(|grant| grant.leases.data), Some(DataLease::Read));
    assert!(names(&mut table, B, &["a"]));
    call(&mut table, A, DIR, Touch::Name(b"a".to_vec()));
    assert!(!names(&mut table, B, &["a"]));
    assert!(names(&mut table, B, &["b"]));
}

#[test]
fn a_session_keeps_at_most_so_much() {
    let mut table = LeaseTable::new(0, 2);
    table.join(A);
    for ino in 1..5 {
        assert_eq!(table.grant(A, Ino(ino), META, None).is_some(), ino < 3);
    }
    assert!(table.open(A, Ino(9), OpenMode::Read).is_ok(), "an open file is no lease");
    table.release(A, Ino(1), META);
    table.close(A, Ino(9));
    assert!(table.grant(A, Ino(3), META, None).is_some());
    assert_eq!(table.inodes_of(A), 2);
}

#[test]
fn an_unlinked_file_is_in_use_until_its_remover_has_answered_and_everybody_closed() {
    let mut table = table();
    table.grant(A, FILE, Leases { meta: true, names: false, data: DataLease::Write }, None);
    assert!(table.open(B, FILE, OpenMode::Read).is_ok());
    let asked = table.unsure(FILE);
    assert_eq!(asked.iter().map(|conflict| conflict.session).collect::<Vec<_>>(), [A], "B has said it");
    let sent = table.call(&asked, NOW);
    table.close(B, FILE);
    assert!(table.in_use(FILE), "A has not answered");
    table.ack(A, Acked { open: true, ..ack(&sent[0].1) });
    assert!(table.in_use(FILE), "A has it open");
    assert!(table.held(A, FILE).meta, "its kernel may keep the attributes of what is open");
    assert_eq!(table.close(A, FILE), Some(OpenMode::Write));
    table.release(A, FILE, META);
    assert!(!table.in_use(FILE));
    table.forget(FILE);
    assert_eq!((table.inodes_of(A), table.inodes_of(B)), (0, 0));
}

#[test]
fn more_callbacks_than_may_be_on_their_way_are_sent_later() {
    let mut table = table();
    let inos = 0..CALLS_PER_SESSION_MAX as u64 + 1;
    for ino in inos.clone() {
        table.grant(A, Ino(ino), Leases { meta: true, names: false, data: DataLease::Read }, None);
    }
    let sent: Vec<_> =
        inos.clone().flat_map(|ino| table.call(&table.unsure(Ino(ino)).clone(), NOW)).collect();
    assert_eq!(sent.len(), CALLS_PER_SESSION_MAX);
    let last = Ino(inos.end - 1);
    assert!(table.in_use(last), "nobody has said that it is not open");
    table.ack(A, ack(&sent[0].1));
    assert!(!table.in_use(sent[0].1.ino));
    assert_eq!(table.call(&table.unsure(last).clone(), NOW).len(), 1);
}

#[test]
fn a_session_that_ends_leaves_nothing_but_what_it_may_have_written() {
    let mut table = table();
    table.grant(B, FILE, data(DataLease::Write), None);
    table.grant(B, DIR, META, None);
    let sent = call(&mut table, A, FILE, Touch::Size);
    assert_eq!(table.drop_session(B), [FILE]);
    assert_eq!(table.conflicts(A, &[(FILE, Touch::Size), (DIR, Touch::Meta)]), []);
    assert_eq!(table.ack(B, ack(&sent[0].1)), None);
    assert_eq!(table.grant(B, DIR, META, None), None, "it is no session any more");
}

#[test]
fn what_is_claimed_after_a_restart_must_go_together() {
    let mut table = table();
    let held = |ino, leases, open| Held { ino, leases, open };
    assert!(table.claim(A, &[held(FILE, data(DataLease::Write), true), held(DIR, META, false)]));
    assert!(table.claim(B, &[held(DIR, META, false)]));
    assert!(!table.claim(C, &[held(FILE, META, false)]));
    assert_eq!(table.others(B, FILE), Others { open: true, writing: true });
    assert_eq!(table.conflicts(C, &[(DIR, Touch::Meta)]).len(), 2);
}

#[test]
fn who_is_late_is_known() {
    let mut table = table();
    table.grant(B, FILE, META, None);
    let conflicts = table.conflicts(A, &[(FILE, Touch::Meta)]);
    table.call(&conflicts, Duration::from_secs(5));
    assert_eq!(table.overdue(Duration::from_secs(5)), []);
    assert_eq!(table.overdue(Duration::from_secs(6)), [B]);
    assert_eq!(table.outstanding(B).len(), 1);
}

// Clients and a server with messages on their way, against the table.

/// What a client believes about one inode.
#[derive(Clone, Debug, Default)]
struct Belief {
    meta: bool,
    names: BTreeSet<Vec<u8>>,
    data: DataLease,
    /// The highest callback.
    called: u64,
}

#[derive(Clone, Debug)]
struct Request {
    session: SessionId,
    touches: Vec<(Ino, Touch)>,
    /// Leases and names that the answer grants.
    want: (Ino, Leases, Option<Vec<u8>>),
    /// It is of no use without the lease.
    must: bool,
    ticket: Option<Ticket>,
}

#[derive(Clone, Debug)]
struct AnswerOnItsWay {
    session: SessionId,
    seq: u64,
    grants: Vec<Grant>,
    name: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Step {
    Ask { session: u8, ino: u8, kind: u8, name: u8 },
    Serve(u8),
    Answer(u8),
    Callback(u8),
    Ack(u8),
    Release { session: u8, ino: u8 },
    Evict(u8),
}

struct World {
    table: LeaseTable,
    beliefs: BTreeMap<(SessionId, Ino), Belief>,
    requests: Vec<Request>,
    answers: Vec<AnswerOnItsWay>,
    callbacks: BTreeMap<SessionId, VecDeque<Callback>>,
    acks: Vec<(SessionId, Acked)>,
}

const SESSIONS: u8 = 3;
const INOS: u8 = 3;

fn session(n: u8) -> SessionId {
    SessionId(u128::from(n % SESSIONS) + 1)
}

impl World {
    fn new() -> World {
        let mut table = LeaseTable::new(0, 3);
        (0..SESSIONS).for_each(|n| table.join(session(n)));
        World {
            table,
            beliefs: BTreeMap::new(),
            requests: Vec::new(),
            answers: Vec::new(),
            callbacks: BTreeMap::new(),
            acks: Vec::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Ask { session: n, ino, kind, name } => {
                let request = request(session(n), Ino(u64::from(ino % INOS)), kind, vec![name % 4]);
                self.requests.push(request);
            }
            Step::Serve(n) if !self.requests.is_empty() => {
                self.serve(usize::from(n) % self.requests.len());
            }
            Step::Answer(n) if !self.answers.is_empty() => {
                let answer = self.answers.remove(usize::from(n) % self.answers.len());
                self.believe(&answer);
            }
            Step::Callback(n) => self.called(session(n)),
            Step::Ack(n) if !self.acks.is_empty() => {
                let (session, acked) = self.acks.remove(usize::from(n) % self.acks.len());
                self.table.ack(session, acked);
            }
            Step::Release { session: n, ino } => self.release(session(n), Ino(u64::from(ino % INOS))),
            Step::Evict(n) => self.evict(session(n)),
            Step::Serve(_) | Step::Answer(_) | Step::Ack(_) => {}
        }
        self.check();
    }

    /// What the server does each time when a request has the lock.
    fn serve(&mut self, nth: usize) {
        let Request { session, mut touches, want: (ino, leases, name), must, ticket } =
            self.requests[nth].clone();
        if must && self.table.mode_with(session, ino, leases.data) == DataLease::Write {
            touches = vec![(ino, Touch::Data(DataLease::Write)), (ino, Touch::Meta)];
        }
        let conflicts = self.table.conflicts(session, &touches);
        for (to, callback) in self.table.call(&conflicts, NOW) {
            self.callbacks.entry(to).or_default().push_back(callback);
        }
        if !conflicts.is_empty() || must && !self.table.grants(session, ino, leases, ticket) {
            self.requests[nth].ticket = self.table.wait(ticket, session, &touches);
            return;
        }
        self.requests.remove(nth);
        self.applied(session, &touches);
        let mut grants: Vec<Grant> = self.table.grant(session, ino, leases, ticket).into_iter().collect();
        if let Some(name) = &name {
            grants.extend(self.table.grant_names(session, ino, &std::iter::once(name.as_slice()), ticket));
        }
        if let Some(ticket) = ticket {
            self.table.leave(ticket);
        }
        self.answers.push(AnswerOnItsWay { session, seq: self.table.seq(), grants, name });
    }

    /// Nobody else may use what this changes.
    fn applied(&self, by: SessionId, touches: &[(Ino, Touch)]) {
        for (ino, touch) in touches {
            let others = self.beliefs.iter().filter(|((session, of), _)| *session != by && of == ino);
            for ((session, _), belief) in others {
                let stale = match touch {
                    Touch::Meta => belief.meta,
                    Touch::Name(name) => belief.names.contains(name),
                    Touch::Names => !belief.names.is_empty(),
                    Touch::Data(mode) => !fit(*mode, belief.data),
                    Touch::Size => belief.data == DataLease::Write,
                };
                assert!(!stale, "{touch:?} of {ino:?} by {by:?}, and {session:?} believes {belief:?}");
            }
        }
    }

    fn believe(&mut self, answer: &AnswerOnItsWay) {
        for grant in &answer.grants {
            let belief = self.beliefs.entry((answer.session, grant.ino)).or_default();
            if belief.called > answer.seq {
                continue;
            }
            belief.meta |= grant.leases.meta;
            if grant.leases.names {
                belief.names.extend(answer.name.clone());
            }
            belief.data = holding::join(belief.data, grant.leases.data);
        }
    }

    fn called(&mut self, session: SessionId) {
        let Some(callback) = self.callbacks.entry(session).or_default().pop_front() else { return };
        let belief = self.beliefs.entry((session, callback.ino)).or_default();
        belief.called = callback.seq;
        match &callback.take {
            Take::Meta | Take::Unlinked => belief.meta = false,
            Take::Name(name) => {
                belief.names.remove(name);
            }
            Take::Names => belief.names.clear(),
            Take::Data(mode) => belief.data = belief.data.min(*mode),
        }
        self.acks.push((session, ack(&callback)));
    }

    fn release(&mut self, session: SessionId, ino: Ino) {
        // A client gives back only what no answer on its way can grant again.
        if self.answers.iter().any(|answer| answer.session == session) {
            return;
        }
        let called = self.beliefs.get(&(session, ino)).map_or(0, |belief| belief.called);
        self.beliefs.insert((session, ino), Belief { called, ..Belief::default() });
        self.table.release(session, ino, Leases { meta: true, names: true, data: DataLease::Write });
    }

    fn evict(&mut self, session: SessionId) {
        self.table.drop_session(session);
        self.beliefs.retain(|(of, _), _| *of != session);
        self.callbacks.remove(&session);
        self.acks.retain(|(of, _)| *of != session);
        self.answers.retain(|answer| answer.session != session);
        let gone: Vec<Request> = self.requests.extract_if(.., |request| request.session == session).collect();
        gone.into_iter().filter_map(|request| request.ticket).for_each(|ticket| self.table.leave(ticket));
        self.table.join(session);
    }

    fn check(&self) {
        for ((one, ino), belief) in &self.beliefs {
            let others = self.beliefs.iter().filter(|((other, of), _)| other > one && of == ino);
            for (_, other) in others {
                assert!(fit(belief.data, other.data), "{ino:?}: {belief:?} and {other:?}");
                let alone = |one: &Belief, other: &Belief| one.data == DataLease::Write && other.meta;
                assert!(!alone(belief, other) && !alone(other, belief), "{ino:?}: {belief:?} and {other:?}");
            }
        }
        for n in 0..SESSIONS {
            assert!(self.table.inodes_of(session(n)) <= 3);
        }
    }

    /// Delivers everything until nothing is on its way; every request must end.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            (0..self.requests.len()).rev().for_each(|n| self.step(&Step::Serve(n as u8)));
            (0..SESSIONS).for_each(|n| self.step(&Step::Callback(n)));
            self.step(&Step::Answer(0));
            self.step(&Step::Ack(0));
            let quiet = self.callbacks.values().all(VecDeque::is_empty) && self.acks.is_empty();
            if quiet && self.requests.is_empty() {
                return;
            }
        }
        panic!("still waiting: {:?}", self.requests);
    }
}

fn fit(one: DataLease, other: DataLease) -> bool {
    one == DataLease::None || other == DataLease::None || one == other && one != DataLease::Write
}

fn request(session: SessionId, ino: Ino, kind: u8, name: Vec<u8>) -> Request {
    let lease = |mode, meta| (ino, Leases { meta, names: false, data: mode }, None);
    let (touches, want, must) = match kind % 8 {
        0 => (vec![(ino, Touch::Size)], lease(DataLease::None, true), false),
        1 => (
            vec![(ino, Touch::Meta), (ino, Touch::Data(DataLease::Write))],
            lease(DataLease::None, true),
            false,
        ),
        2 => {
            let touches = vec![(ino, Touch::Name(name.clone())), (ino, Touch::Meta)];
            (touches, (ino, META, Some(name)), false)
        }
        3 => (vec![], (ino, Leases::default(), Some(name)), false),
        4 => (vec![(ino, Touch::Names)], lease(DataLease::None, false), false),
        5 => (vec![(ino, Touch::Data(DataLease::Read))], lease(DataLease::Read, false), true),
        6 => (vec![(ino, Touch::Data(DataLease::Direct))], lease(DataLease::Direct, false), true),
        _ => {
            let touches = vec![(ino, Touch::Data(DataLease::Write)), (ino, Touch::Meta)];
            (touches, lease(DataLease::Write, false), true)
        }
    };
    Request { session, touches, want, must, ticket: None }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<(u8, u8, u8, u8)>().prop_map(|(session, ino, kind, name)| Step::Ask { session, ino, kind, name }),
        8 => any::<u8>().prop_map(Step::Serve),
        6 => any::<u8>().prop_map(Step::Answer),
        8 => any::<u8>().prop_map(Step::Callback),
        6 => any::<u8>().prop_map(Step::Ack),
        1 => any::<(u8, u8)>().prop_map(|(session, ino)| Step::Release { session, ino }),
        1 => any::<u8>().prop_map(Step::Evict),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nobody_believes_what_is_not_true_and_everybody_gets_an_answer(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.settle();
    }
}
