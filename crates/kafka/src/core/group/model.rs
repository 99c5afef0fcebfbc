//! What goes into a group and what comes out of it.

use crate::wire::ErrorCode;
use bytes::Bytes;
use std::time::Duration;

/// Names a request that waits for the group; unique while the group is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token(pub(crate) u64);

/// Bounds of every group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Shortest session timeout a member may ask for (`group.min.session.timeout.ms`).
    pub(crate) session_min: Duration,
    /// Longest (`group.max.session.timeout.ms`).
    pub(crate) session_max: Duration,
    /// How long the first rebalance of an empty group waits for more members (`group.initial.rebalance.delay.ms`).
    pub(crate) initial_delay: Duration,
    /// Members of one group (`group.max.size`).
    pub(crate) members_max: usize,
}

/// A member's wish to enter.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    /// Empty at first.
    pub(crate) member: String,
    /// The id it gets if it has none; from outside, because it is random.
    pub(crate) fresh_member: String,
    /// Static membership (KIP-345).
    pub(crate) instance: Option<String>,
    /// What the client calls itself, and where it connects from.
    pub(crate) client: (String, String),
    /// It is dead when it was not heard of for that long.
    pub(crate) session_timeout: Duration,
    /// How long the others wait for it to join again.
    pub(crate) rebalance_timeout: Duration,
    /// `consumer` for consumers.
    pub(crate) protocol_type: String,
    /// Assignment strategies it knows, best first, with what it tells the leader for each.
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// Whether a new member must come back with its id before it counts (KIP-394: version 4 and later).
    pub(crate) needs_known_member: bool,
    /// Whether the client understands that a leader need not assign (KIP-814: version 9).
    pub(crate) can_skip_assignment: bool,
}

/// Answer to a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    /// [`ErrorCode::None`] if the member is in.
    pub(crate) error: ErrorCode,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: String,
    pub(crate) member: String,
    pub(crate) skip_assignment: bool,
    /// For the leader: id, instance and metadata of each.
    pub(crate) members: Vec<(String, Option<String>, Bytes)>,
}

impl Joined {
    pub(crate) fn failed(error: ErrorCode, member: String) -> Self {
        Self {
            error,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            member,
            skip_assignment: false,
            members: Vec::new(),
        }
    }
}

/// A member that hands out, or waits for, the assignment.
#[derive(Debug, Clone)]
pub(crate) struct Sync {
    pub(crate) who: Who,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    /// From the leader: the share of each member.
    pub(crate) assignments: Vec<(String, Bytes)>,
}

/// Answer to a sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) error: ErrorCode,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignment: Bytes,
}

impl Synced {
    pub(crate) fn failed(error: ErrorCode) -> Self {
        Self { error, protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}

/// Who claims to speak.
#[derive(Debug, Clone, Default)]
pub(crate) struct Who {
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
    pub(crate) generation: i32,
}

/// What the caller must do now: answer requests that wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Answer this join.
    Joined(Token, Joined),
    /// Answer this sync.
    Synced(Token, Synced),
}

/// A member as `DescribeGroups` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberView {
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
    pub(crate) client: (String, String),
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}
