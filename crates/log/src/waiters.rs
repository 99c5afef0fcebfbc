//! Who waits for what to become durable.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use kiln_types::Offset;

use crate::error::Failed;
use crate::log::Shared;

/// A function to call with the outcome.
pub(crate) type Callback = Box<dyn FnOnce(Result<(), Failed>) + Send>;

enum Wake {
    Task(Waker),
    Call(Callback),
}

struct Waiter {
    last: Offset,
    wake: Wake,
}

/// The waiters of one log, with the outcome they wait for.
pub(crate) struct Waiters {
    inner: Mutex<Inner>,
}

struct Inner {
    /// Exclusive: the first offset that is not durable.
    durable: Offset,
    failed: Option<Failed>,
    list: Vec<Waiter>,
    /// Counts how often `list` was rearranged: a place in it is good for one generation.
    generation: u64,
}

impl Inner {
    fn outcome(&self, last: Offset) -> Option<Result<(), Failed>> {
        if last < self.durable {
            return Some(Ok(()));
        }
        self.failed.clone().map(Err)
    }
}

/// Waiters taken off the list, to be woken when no lock is held.
#[derive(Default)]
pub(crate) struct Woken {
    tasks: Vec<Waker>,
    calls: Vec<(Callback, Result<(), Failed>)>,
}

impl Woken {
    pub(crate) fn len(&self) -> usize {
        self.tasks.len() + self.calls.len()
    }

    pub(crate) fn wake(&mut self) {
        self.tasks.drain(..).for_each(Waker::wake);
        self.calls.drain(..).for_each(|(call, outcome)| call(outcome));
    }
}

impl Waiters {
    pub(crate) fn new(durable: Offset) -> Waiters {
        let inner = Inner { durable, failed: None, list: Vec::new(), generation: 0 };
        Waiters { inner: Mutex::new(inner) }
    }

    /// Calls `call` once `last` is durable or never will be; hands it back with the outcome if that is known now.
    pub(crate) fn add_call(&self, last: Offset, call: Callback) -> Option<(Callback, Result<(), Failed>)> {
        let mut inner = self.lock();
        if let Some(outcome) = inner.outcome(last) {
            return Some((call, outcome));
        }
        inner.list.push(Waiter { last, wake: Wake::Call(call) });
        None
    }

    /// Everything below `durable` is on the disk: moves those who waited for it to `woken`.
    pub(crate) fn advance(&self, durable: Offset, woken: &mut Woken) {
        let mut inner = self.lock();
        debug_assert!(durable >= inner.durable, "durable never goes back");
        inner.durable = durable;
        inner.generation += 1;
        let ready = |waiter: &mut Waiter| waiter.last < durable;
        for waiter in inner.list.extract_if(.., ready) {
            match waiter.wake {
                Wake::Task(waker) => woken.tasks.push(waker),
                Wake::Call(call) => woken.calls.push((call, Ok(()))),
            }
        }
    }

    /// Nothing more will become durable: tells everybody.
    pub(crate) fn fail(&self, failed: &Failed, woken: &mut Woken) {
        let mut inner = self.lock();
        inner.failed.get_or_insert_with(|| failed.clone());
        inner.generation += 1;
        for waiter in inner.list.drain(..) {
            match waiter.wake {
                Wake::Task(waker) => woken.tasks.push(waker),
                Wake::Call(call) => woken.calls.push((call, Err(failed.clone()))),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves when an offset is durable, or its log has stopped. Dropping it is harmless.
#[must_use = "a future does nothing unless polled"]
pub struct Durable {
    shared: Arc<Shared>,
    last: Offset,
    /// Generation of the list, and place in it.
    place: Option<(u64, usize)>,
}

impl Durable {
    pub(crate) fn new(shared: Arc<Shared>, last: Offset) -> Durable {
        Durable { shared, last, place: None }
    }
}

impl Future for Durable {
    type Output = Result<(), Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut inner = this.shared.waiters.lock();
        if let Some(outcome) = inner.outcome(this.last) {
            return Poll::Ready(outcome);
        }
        if let Some((generation, place)) = this.place
            && generation == inner.generation
            && let Wake::Task(waker) = &mut inner.list[place].wake
        {
            waker.clone_from(cx.waker()); // polled again, perhaps by another task
            return Poll::Pending;
        }
        this.place = Some((inner.generation, inner.list.len()));
        inner.list.push(Waiter { last: this.last, wake: Wake::Task(cx.waker().clone()) });
        drop(inner);
        this.shared.volume.ask();
        Poll::Pending
    }
}
