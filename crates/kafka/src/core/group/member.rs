//! One member of a group.

use super::model::{Join, Token};
use bytes::Bytes;
use std::time::Duration;

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) instance: Option<String>,
    pub(super) client: (String, String),
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    /// When it counts as dead, unless it waits for a join or a sync.
    pub(super) dead_at: Duration,
    /// Its join that waits for the others.
    pub(super) joining: Option<Token>,
    /// Its sync that waits for the leader.
    pub(super) syncing: Option<Token>,
    /// Whether its leader has handed it its share in this generation, or it has asked for it.
    pub(super) synced: bool,
}

impl Member {
    pub(super) fn new(now: Duration, join: &Join) -> Self {
        Self {
            instance: join.instance.clone(),
            client: join.client.clone(),
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            protocols: join.protocols.clone(),
            assignment: Bytes::new(),
            dead_at: now + join.session_timeout,
            joining: None,
            syncing: None,
            synced: false,
        }
    }

    pub(super) fn update(&mut self, now: Duration, join: &Join) {
        self.client.clone_from(&join.client);
        self.session_timeout = join.session_timeout;
        self.rebalance_timeout = join.rebalance_timeout;
        self.protocols.clone_from(&join.protocols);
        self.heard(now);
    }

    pub(super) fn heard(&mut self, now: Duration) {
        self.dead_at = now + self.session_timeout;
    }

    /// Whether its session has ended. While a request of it waits here, it is alive.
    pub(super) fn is_dead(&self, now: Duration) -> bool {
        self.joining.is_none() && self.syncing.is_none() && self.dead_at <= now
    }

    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let of = self.protocols.iter().find(|(name, _)| name == protocol);
        of.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    pub(super) fn knows(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }
}
