//! A queue against a model that is obviously right.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::core::UNLOGGED;

fn entry(size: u32) -> Entry {
    let names = (crate::wire::ShortStr::default(), crate::wire::ShortStr::default());
    let raw = crate::wire::Properties::default().encode();
    let message =
        crate::core::Message::new(names, raw, bytes::Bytes::new(), &crate::wire::Traits::default()).unwrap();
    Entry {
        position: 0,
        offset: UNLOGGED,
        expires_at: NEVER,
        size,
        priority: 0,
        redelivered: false,
        message: Some(std::sync::Arc::new(message)),
    }
}

/// What happens to a queue.
#[derive(Debug, Clone)]
enum Step {
    Publish,
    /// The consumer gets room for this many more.
    Room(usize),
    /// Of those delivered: settle or requeue the nth.
    Settle(prop::sample::Index),
    Requeue(prop::sample::Index),
    Get,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Publish),
        2 => (1..4usize).prop_map(Step::Room),
        2 => any::<prop::sample::Index>().prop_map(Step::Settle),
        3 => any::<prop::sample::Index>().prop_map(Step::Requeue),
        1 => Just(Step::Get),
    ]
}

/// The queue, one consumer, and the model: ready positions in order, each with whether it is redelivered.
struct Bench {
    queue: Queue<()>,
    key: ConsumerKey,
    room: RefCell<usize>,
    out: Vec<Entry>,
    ready: BTreeMap<u64, bool>,
    next: u64,
}

impl Bench {
    fn new() -> Self {
        let mut queue = Queue::new(QueueArguments::default(), 0);
        let key = queue.add_consumer((), false);
        Self { queue, key, room: RefCell::new(0), out: Vec::new(), ready: BTreeMap::new(), next: 0 }
    }

    fn drain(&mut self) {
        let taken = RefCell::new(Vec::new());
        let drained = self.queue.drain(|(), _, entry| {
            if *self.room.borrow() == 0 {
                return Offer::Busy(entry);
            }
            *self.room.borrow_mut() -= 1;
            taken.borrow_mut().push(entry);
            Offer::Taken
        });
        assert_eq!(drained, Drained::Idle);
        taken.into_inner().into_iter().for_each(|entry| self.took(entry));
    }

    fn took(&mut self, entry: Entry) {
        let (position, redelivered) = self.ready.pop_first().expect("the model has a message too");
        assert_eq!((entry.position, entry.redelivered), (position, redelivered));
        self.out.push(entry);
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Publish => {
                self.queue.push(entry(1));
                self.ready.insert(self.next, false);
                self.next += 1;
            }
            Step::Room(more) => {
                *self.room.borrow_mut() += more;
                self.queue.resume(self.key);
            }
            Step::Settle(nth) if !self.out.is_empty() => {
                self.out.swap_remove(nth.index(self.out.len()));
                self.queue.settle();
            }
            Step::Requeue(nth) if !self.out.is_empty() => {
                let entry = self.out.swap_remove(nth.index(self.out.len()));
                self.ready.insert(entry.position, true);
                self.queue.requeue(entry);
            }
            Step::Get => {
                if let Some(entry) = self.queue.pop(0) {
                    self.took(entry);
                }
            }
            Step::Settle(_) | Step::Requeue(_) => {}
        }
        self.drain();
        assert_eq!(self.queue.ready_count(), self.ready.len());
        assert_eq!(self.queue.ready_bytes(), self.ready.len() as u64);
        assert_eq!(self.queue.unacked_count(), self.out.len());
        assert!(*self.room.borrow() == 0 || self.ready.is_empty(), "nothing waits while there is room");
    }
}

proptest! {
    #[test]
    fn order_is_that_of_publishing_whatever_is_requeued(steps in proptest::collection::vec(step(), 1..200)) {
        let mut bench = Bench::new();
        for step in &steps {
            bench.run(step);
        }
    }
}

#[test]
fn consumers_take_turns_and_a_busy_one_is_skipped() {
    let mut queue = Queue::new(QueueArguments::default(), 0);
    let names = ["a", "b", "c"];
    let keys = names.map(|name| queue.add_consumer(name, false));
    (0..6).for_each(|_| queue.push(entry(1)));
    let mut got = Vec::new();
    queue.drain(|&name, _, entry| {
        if name == "b" {
            return Offer::Busy(entry);
        }
        got.push((name, entry.position));
        Offer::Taken
    });
    assert_eq!(got, [("a", 0), ("c", 1), ("a", 2), ("c", 3), ("a", 4), ("c", 5)]);
    queue.push(entry(1));
    queue.remove_consumer(keys[0], 0);
    queue.remove_consumer(keys[2], 0);
    queue.resume(keys[1]);
    let mut got = Vec::new();
    queue.drain(|&name, _, entry| {
        got.push((name, entry.position));
        Offer::Taken
    });
    assert_eq!(got, [("b", 6)]);
}

#[test]
fn only_the_first_consumer_is_active_when_there_may_be_one() {
    let arguments = QueueArguments { single_active_consumer: true, ..QueueArguments::default() };
    let mut queue = Queue::new(arguments, 0);
    let first = queue.add_consumer("first", false);
    queue.add_consumer("second", false);
    let mut served = Vec::new();
    let mut drain = |queue: &mut Queue<&'static str>| {
        queue.push(entry(1));
        queue.push(entry(1));
        queue.drain(|&name, _, _| {
            served.push(name);
            Offer::Taken
        });
    };
    drain(&mut queue);
    queue.remove_consumer(first, 0);
    drain(&mut queue);
    assert_eq!(served, ["first", "first", "second", "second"]);
}

#[test]
fn what_is_over_the_limit_goes_from_the_head() {
    let arguments =
        QueueArguments { max_length: Some(2), max_length_bytes: Some(10), ..QueueArguments::default() };
    let mut queue: Queue<()> = Queue::new(arguments, 0);
    for size in [1, 1, 9, 9] {
        queue.push(entry(size));
    }
    let gone: Vec<u64> = queue.overflow().iter().map(|entry| entry.position).collect();
    assert_eq!((gone, queue.ready_count()), (vec![0, 1, 2], 1));
}

#[test]
fn messages_expire_only_at_the_head() {
    let mut queue: Queue<()> = Queue::new(QueueArguments::default(), 0);
    queue.push(entry(1));
    queue.push(Entry { expires_at: 5, ..entry(1) });
    assert!(queue.expire(9).is_empty());
    queue.pop(9);
    assert_eq!(queue.next_deadline(), Some(5));
    assert_eq!(queue.expire(9).len(), 1);
}

#[test]
fn a_body_that_is_only_in_the_log_is_asked_for() {
    let mut queue = Queue::new(QueueArguments::default(), 0);
    queue.add_consumer((), false);
    for offset in [7, 8] {
        queue.push(Entry { offset, message: None, ..entry(1) });
    }
    let mut took = 0;
    let drained = queue.drain(|(), _, _| {
        took += 1;
        Offer::Taken
    });
    assert_eq!(drained, Drained::NeedsBody { offset: 7 });
    let filled = queue.fill(|offset| (offset == 7).then(|| entry(1).message.expect("it has one")));
    assert_eq!(filled, 1);
    let drained = queue.drain(|(), _, _| {
        took += 1;
        Offer::Taken
    });
    assert_eq!((drained, took), (Drained::NeedsBody { offset: 8 }, 1));
}
