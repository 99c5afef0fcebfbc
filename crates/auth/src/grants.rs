//! Compiled permissions, kept for as long as nobody changes any.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use kiln_store::{Handle, ReadError, Revision};
use tokio::sync::watch;

use crate::machine::{AuthMachine, PERMISSIONS, permission_key};
use crate::permission::{Compiled, Permissions};

/// The permissions that were asked for, compiled.
///
/// Only rows that exist are kept, so there are no more entries than rows.
pub(crate) struct Grants {
    handle: Handle<AuthMachine>,
    changed: watch::Receiver<Revision>,
    kept: RwLock<Kept>,
}

#[derive(Default)]
struct Kept {
    /// All entries were read at this revision or later, and no permission changed since.
    revision: Revision,
    /// By user, then by virtual host.
    entries: HashMap<String, HashMap<String, Arc<Compiled>>>,
}

impl Grants {
    pub(crate) fn new(handle: Handle<AuthMachine>) -> Grants {
        let changed = handle.watch(PERMISSIONS, &[]);
        Grants { handle, changed, kept: RwLock::default() }
    }

    /// The permissions of `user` in `vhost`; `None` if there are none.
    pub(crate) fn of(&self, user: &str, vhost: &str) -> Result<Option<Arc<Compiled>>, ReadError> {
        let revision = *self.changed.borrow();
        if let Some(found) = self.find(revision, user, vhost) {
            return Ok(Some(found));
        }
        let row = self.handle.read().get::<Permissions>(PERMISSIONS, &permission_key(user, vhost))?;
        // A pattern that does not compile was not set through `Auth`; it allows nothing.
        let compiled = row.and_then(|permissions| Compiled::new(&permissions).ok()).map(Arc::new);
        if let Some(compiled) = &compiled {
            self.keep(revision, user, vhost, compiled.clone());
        }
        Ok(compiled)
    }

    fn find(&self, revision: Revision, user: &str, vhost: &str) -> Option<Arc<Compiled>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        if kept.revision != revision {
            return None;
        }
        kept.entries.get(user)?.get(vhost).cloned()
    }

    /// Keeps what was read at `revision` or later.
    fn keep(&self, revision: Revision, user: &str, vhost: &str, compiled: Arc<Compiled>) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.revision > revision {
            return;
        }
        if kept.revision < revision {
            *kept = Kept { revision, entries: HashMap::new() };
        }
        kept.entries.entry(user.to_owned()).or_default().insert(vhost.to_owned(), compiled);
    }
}
