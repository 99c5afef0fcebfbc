//! What a connection remembers of routing, so that a message costs one lookup.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_auth::Access;

use crate::core::Refusal;
use crate::server::broker::Broker;
use crate::server::queue::Queue;
use crate::server::vhost::Vhost;
use crate::wire::ShortStr;

/// Answers remembered by one connection; all are forgotten when there are more.
const ROUTES_MAX: usize = 1024;

/// The queues of an exchange and routing key.
pub(super) type Route = Arc<[Arc<Queue>]>;

/// Answers that hold as long as the topology stands.
#[derive(Debug, Default)]
pub(super) struct Routes {
    generation: u64,
    known: HashMap<ShortStr, HashMap<ShortStr, Route>>,
    count: usize,
    /// An exchange to which the user may publish, as of now; permissions may change at any time.
    allowed: Option<ShortStr>,
}

impl Routes {
    /// Whether the permission to publish to `exchange` was checked since [`Routes::recheck`].
    pub(super) fn is_allowed(&self, exchange: &ShortStr) -> bool {
        self.allowed.as_ref() == Some(exchange)
    }

    /// The user may publish to `exchange`.
    pub(super) fn allow(&mut self, exchange: &ShortStr) {
        self.allowed = Some(exchange.detached());
    }

    /// Permissions are to be checked again: once for each read of the socket and exchange.
    pub(super) fn recheck(&mut self) {
        self.allowed = None;
    }

    /// A remembered answer.
    pub(super) fn get(&mut self, generation: u64, exchange: &ShortStr, key: &ShortStr) -> Option<Route> {
        if self.generation != generation {
            self.known.clear();
            self.count = 0;
            self.generation = generation;
            return None;
        }
        self.known.get(exchange.as_bytes())?.get(key.as_bytes()).cloned()
    }

    /// Remembers an answer; the names are copied, so that no read buffer is kept alive.
    pub(super) fn put(&mut self, exchange: &ShortStr, key: &ShortStr, route: &Route) {
        if self.count >= ROUTES_MAX {
            self.known.clear();
            self.count = 0;
        }
        self.count += 1;
        self.known.entry(exchange.detached()).or_default().insert(key.detached(), Arc::clone(route));
    }
}

/// Who is connected, and where.
pub(super) struct Place {
    pub(super) user: Arc<str>,
    pub(super) vhost: Arc<Vhost>,
}

/// What kind of thing is accessed, as errors name it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Resource {
    Queue,
    Exchange,
}

impl Place {
    /// 403 unless the user may do this.
    pub(super) fn check(
        &self,
        broker: &Broker,
        access: Access,
        resource: Resource,
        name: &ShortStr,
    ) -> Result<(), Refusal> {
        // The default exchange has no name; permissions call it this.
        let shown = if name.is_empty() { "amq.default" } else { name.as_str() };
        if broker.auth().allowed(&self.user, &self.vhost.name, access, shown) {
            return Ok(());
        }
        let kind = match resource {
            Resource::Queue => "queue",
            Resource::Exchange => "exchange",
        };
        Err(Refusal::access(format!(
            "access to {kind} '{shown}' in vhost '{}' refused for user '{}'",
            self.vhost.name, self.user
        )))
    }
}
