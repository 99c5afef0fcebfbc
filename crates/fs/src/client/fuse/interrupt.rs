//! Whether the program that waits for an answer still wants it.

use std::sync::{Mutex, MutexGuard, PoisonError};

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
        if let Some(hook) = hook {
            hook();
        }
        true
    }

    /// Interrupts whatever is served.
    #[cfg(test)]
    pub(crate) fn raise_now(&self) {
        let unique = self.state().unique;
        self.raise(unique);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.state().raised
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
