//! Whether the program that waits for an answer still wants it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    /// The request that is served; 0 between requests.
    unique: u64,
    raised: bool,
    hook: Option<Hook>,
}

/// The interruption of what one thread serves: raised when the program got a signal.
#[derive(Default)]
pub(crate) struct Interrupt {
    state: Mutex<State>,
    raised: Condvar,
}

impl Interrupt {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread serves this request from now on; 0 for none.
    pub(super) fn begin(&self, unique: u64) {
        *self.state() = State { unique, ..State::default() };
    }

    /// Interrupts the request; `false` when it is not the one that is served.
    pub(super) fn raise(&self, unique: u64) -> bool {
        let mut state = self.state();
        if state.unique != unique {
            return false;
        }
        state.raised = true;
        let hook = state.hook.take();
        drop(state);
        self.raised.notify_all();
        if let Some(hook) = hook {
            hook();
        }
        true
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.state().raised
    }

    /// Waits until it is raised, at most so long; whether it is.
    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        let waited = self.raised.wait_timeout_while(self.state(), at_most, |state| !state.raised);
        waited.unwrap_or_else(PoisonError::into_inner).0.raised
    }

    /// Calls `hook` when it is raised, at once if it is already. A hook of before is dropped.
    pub(crate) fn on_raise(&self, hook: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        if state.raised {
            drop(state);
            hook();
        } else {
            state.hook = Some(Box::new(hook));
        }
    }
}
