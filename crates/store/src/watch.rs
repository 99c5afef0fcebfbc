//! Who wants to hear of changes under which keys.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::Revision;

/// The watchers of a store.
#[derive(Default)]
pub(crate) struct Watches {
    watches: Mutex<Vec<Watch>>,
}

struct Watch {
    prefix: Vec<u8>,
    revision: watch::Sender<Revision>,
}

/// What a round changed.
pub(crate) enum Touched {
    Keys(BTreeSet<Vec<u8>>),
    Everything,
}

impl Touched {
    pub(crate) fn none() -> Touched {
        Touched::Keys(BTreeSet::new())
    }

    fn under(&self, prefix: &[u8]) -> bool {
        match self {
            Touched::Everything => true,
            Touched::Keys(keys) => keys
                .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
                .next()
                .is_some_and(|key| key.starts_with(prefix)),
        }
    }
}

impl Watches {
    /// A receiver that starts at `now` and is given the revision after each round that touched `prefix`.
    ///
    /// Watches without a receiver are let go here and in `tell`, so there are no more than there are receivers.
    pub(crate) fn add(&self, prefix: Vec<u8>, now: Revision) -> watch::Receiver<Revision> {
        let (revision, receiver) = watch::channel(now);
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|watch| watch.revision.receiver_count() > 0);
        watches.push(Watch { prefix, revision });
        receiver
    }

    pub(crate) fn tell(&self, touched: &Touched, revision: Revision) {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|watch| !touched.under(&watch.prefix) || watch.revision.send(revision).is_ok());
    }

    /// Ends every watch: their receivers see the channel closed.
    pub(crate) fn close(&self) {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[&str]) -> Touched {
        Touched::Keys(keys.iter().map(|key| key.as_bytes().to_vec()).collect())
    }

    #[test]
    fn only_watches_of_a_touched_prefix_are_told() {
        let watches = Watches::default();
        let mut near = watches.add(b"b".to_vec(), Revision(1));
        let mut far = watches.add(b"c".to_vec(), Revision(1));
        watches.tell(&keys(&["a", "ba", "d"]), Revision(2));
        assert!(near.has_changed().unwrap() && !far.has_changed().unwrap());
        assert_eq!(*near.borrow_and_update(), Revision(2));
        watches.tell(&Touched::Everything, Revision(3));
        assert!(near.has_changed().unwrap() && far.has_changed().unwrap());
        assert_eq!(*far.borrow_and_update(), Revision(3));
    }

    #[test]
    fn a_watch_whose_receiver_is_gone_is_let_go() {
        let watches = Watches::default();
        drop(watches.add(b"a".to_vec(), Revision(0)));
        watches.tell(&keys(&["a"]), Revision(1));
        assert_eq!(watches.watches.lock().unwrap().len(), 0);
    }
}
