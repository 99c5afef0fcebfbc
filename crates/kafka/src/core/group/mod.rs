//! The classic group protocol: members join, one of them leads and assigns, all of them hold their share until
//! somebody comes or goes (`kafka.coordinator.group.GroupCoordinator` of Kafka 3.9; KIP-134, 345, 394, 814).
//!
//! ```text
//!            join                  all joined, or time is up          leader syncs
//!  Empty ------------> Preparing ----------------------------> Completing -------> Stable
//!    ^                  ^  |  ^                                    |                 |
//!    +------------------+  |  +------------------------------------+-----------------+
//!        everybody left            a member joins, leaves or dies
//! ```
//!
//! Nothing here waits: a request that must wait leaves its [`Token`], and is answered by an [`Effect`].

mod member;
mod model;
#[cfg(test)]
mod tests;

pub(crate) use model::{Effect, Join, Joined, Limits, MemberView, Sync, Synced, Token, Who};

use crate::wire::ErrorCode;
use bytes::Bytes;
use member::Member;
use std::collections::BTreeMap;
use std::time::Duration;

/// Protocols that one member may offer, and bytes of what it says about each.
const PROTOCOLS_MAX: usize = 64;
const METADATA_BYTES_MAX: usize = 1 << 20;

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// No members; perhaps committed offsets.
    Empty,
    /// Members are joining, until `until` at the latest.
    Preparing {
        /// When those that have not joined are left out.
        until: Duration,
        /// Whether to wait until then even when everybody has joined, since the group was empty before.
        gathering: bool,
    },
    /// All have joined; the leader is assigning.
    Completing {
        /// When those that have not synced are left out.
        until: Duration,
    },
    /// Everybody has a share.
    Stable,
}

impl State {
    /// Kafka's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Preparing { .. } => "PreparingRebalance",
            Self::Completing { .. } => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A group of consumers, or of any clients that share work.
#[derive(Debug)]
pub(crate) struct Group {
    limits: Limits,
    state: State,
    generation: i32,
    /// Set while there are members.
    protocol_type: Option<String>,
    /// Chosen in `Completing` and `Stable`.
    protocol: Option<String>,
    /// A member in `Completing` and `Stable`.
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Members that got an id and have yet to come back with it; until when.
    promised: BTreeMap<String, Duration>,
}

impl Group {
    /// A group without members.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            promised: BTreeMap::new(),
        }
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Whether nobody is in it or about to come.
    pub(crate) fn is_idle(&self) -> bool {
        self.members.is_empty() && self.promised.is_empty()
    }

    /// `consumer` for consumers; empty when there are no members.
    pub(crate) fn protocol_type(&self) -> &str {
        self.protocol_type.as_deref().unwrap_or("")
    }

    /// The chosen assignment strategy, or nothing.
    pub(crate) fn protocol(&self) -> &str {
        self.protocol.as_deref().unwrap_or("")
    }

    /// The members.
    pub(crate) fn members(&self) -> Vec<MemberView> {
        let view = |(id, member): (&String, &Member)| MemberView {
            member: id.clone(),
            instance: member.instance.clone(),
            client: member.client.clone(),
            metadata: member.metadata(self.protocol()),
            assignment: member.assignment.clone(),
        };
        self.members.iter().map(view).collect()
    }

    /// A member wants in; `token` is answered now or when the others have joined.
    pub(crate) fn join(&mut self, now: Duration, join: &Join, token: Token) -> Vec<Effect> {
        match self.try_join(now, join, token) {
            Ok(effects) => effects,
            Err((error, member)) => vec![Effect::Joined(token, Joined::failed(error, member))],
        }
    }

    /// A member hands out, or waits for, the assignment.
    pub(crate) fn sync(&mut self, now: Duration, sync: Sync, token: Token) -> Vec<Effect> {
        if let Err(error) = self.check_sync(&sync) {
            return vec![Effect::Synced(token, Synced::failed(error))];
        }
        let id = sync.who.member;
        if let Some(member) = self.members.get_mut(&id) {
            member.heard(now);
            member.synced = true;
        }
        match self.state {
            State::Stable => vec![Effect::Synced(token, self.share(&id))],
            State::Completing { .. } if self.leader.as_ref() == Some(&id) => {
                self.assign(now, sync.assignments, &id, token)
            }
            _ => {
                let earlier = self.members.get_mut(&id).and_then(|member| member.syncing.replace(token));
                let replaced = |token| Effect::Synced(token, Synced::failed(ErrorCode::RebalanceInProgress));
                earlier.map(replaced).into_iter().collect()
            }
        }
    }

    /// A member is alive; the answer tells it whether to join again.
    pub(crate) fn heartbeat(&mut self, now: Duration, who: &Who) -> ErrorCode {
        if let Err(error) = self.check_member(who) {
            return error;
        }
        self.heard(now, &who.member);
        match self.state {
            State::Preparing { .. } => ErrorCode::RebalanceInProgress,
            _ => ErrorCode::None,
        }
    }

    /// Whether this member may commit offsets now.
    pub(crate) fn may_commit(&mut self, now: Duration, who: &Who) -> ErrorCode {
        if who.generation < 0 && who.member.is_empty() && self.members.is_empty() {
            return ErrorCode::None; // a consumer that assigns its partitions itself
        }
        if let Err(error) = self.check_member(who) {
            return error;
        }
        self.heard(now, &who.member);
        match self.state {
            State::Completing { .. } => ErrorCode::RebalanceInProgress,
            _ => ErrorCode::None,
        }
    }

    /// A member goes, named by its id or by its instance.
    pub(crate) fn leave(
        &mut self,
        now: Duration,
        member: &str,
        instance: Option<&str>,
    ) -> (ErrorCode, Vec<Effect>) {
        if self.promised.remove(member).is_some() {
            return (ErrorCode::None, self.finish_join_if_complete(now));
        }
        let id = match instance.and_then(|instance| self.member_of(instance)) {
            Some(id) if member.is_empty() || id == member => id,
            Some(_) => return (ErrorCode::FencedInstanceId, Vec::new()),
            None => member.to_owned(),
        };
        if !self.members.contains_key(&id) {
            return (ErrorCode::UnknownMemberId, Vec::new());
        }
        (ErrorCode::None, self.remove(now, &id))
    }

    /// The request behind `token` is gone, because its connection is; nobody is to be answered.
    pub(crate) fn abandon(&mut self, token: Token) {
        for member in self.members.values_mut() {
            if member.joining == Some(token) {
                member.joining = None;
            }
            if member.syncing == Some(token) {
                member.syncing = None;
            }
        }
    }

    /// Does what time demands: ends sessions, and rebalances whose time is up.
    pub(crate) fn tick(&mut self, now: Duration) -> Vec<Effect> {
        self.promised.retain(|_, until| *until > now);
        let dead: Vec<String> =
            self.members.iter().filter(|(_, m)| m.is_dead(now)).map(|(id, _)| id.clone()).collect();
        let mut effects = Vec::new();
        for id in dead {
            effects.extend(self.remove(now, &id));
        }
        match self.state {
            State::Preparing { until, .. } if until <= now => effects.extend(self.finish_join(now)),
            State::Preparing { .. } => effects.extend(self.finish_join_if_complete(now)),
            State::Completing { until } if until <= now => effects.extend(self.drop_unsynced(now)),
            _ => {}
        }
        effects
    }

    /// When [`Group::tick`] next has something to do, if nothing happens before.
    pub(crate) fn next_tick(&self) -> Option<Duration> {
        let sessions = self.members.values().filter(|m| m.joining.is_none() && m.syncing.is_none());
        let state = match self.state {
            State::Preparing { until, .. } | State::Completing { until } => Some(until),
            State::Empty | State::Stable => None,
        };
        sessions.map(|m| m.dead_at).chain(self.promised.values().copied()).chain(state).min()
    }

    fn heard(&mut self, now: Duration, member: &str) {
        if let Some(member) = self.members.get_mut(member) {
            member.heard(now);
        }
    }

    fn member_of(&self, instance: &str) -> Option<String> {
        let found = self.members.iter().find(|(_, m)| m.instance.as_deref() == Some(instance));
        found.map(|(id, _)| id.clone())
    }
}

/// Joining.
impl Group {
    fn try_join(
        &mut self,
        now: Duration,
        join: &Join,
        token: Token,
    ) -> Result<Vec<Effect>, (ErrorCode, String)> {
        self.check_join(join).map_err(|error| (error, join.member.clone()))?;
        if join.member.is_empty() {
            return self.join_new(now, join, token);
        }
        if self.promised.remove(&join.member).is_some() {
            return Ok(self.add(now, join, join.member.clone(), token));
        }
        let who =
            Who { member: join.member.clone(), instance: join.instance.clone(), generation: self.generation };
        self.check_member(&who).map_err(|error| (error, join.member.clone()))?;
        Ok(self.rejoin(now, join, token))
    }

    fn check_join(&self, join: &Join) -> Result<(), ErrorCode> {
        let limits = &self.limits;
        if join.session_timeout < limits.session_min || join.session_timeout > limits.session_max {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        let bytes: usize = join.protocols.iter().map(|(name, metadata)| name.len() + metadata.len()).sum();
        if join.protocols.len() > PROTOCOLS_MAX || bytes > METADATA_BYTES_MAX {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if self.protocol_type.as_ref().is_some_and(|of| *of != join.protocol_type) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let others =
            || self.members.iter().filter(|(id, m)| **id != join.member && !is_same_instance(m, join));
        let shared = |name: &str| others().all(|(_, member)| member.knows(name));
        if !join.protocols.iter().any(|(name, _)| shared(name)) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn join_new(
        &mut self,
        now: Duration,
        join: &Join,
        token: Token,
    ) -> Result<Vec<Effect>, (ErrorCode, String)> {
        if let Some(old) = join.instance.as_deref().and_then(|instance| self.member_of(instance)) {
            return Ok(self.replace(now, join, &old, token));
        }
        if self.members.len() + self.promised.len() >= self.limits.members_max {
            return Err((ErrorCode::GroupMaxSizeReached, String::new()));
        }
        if join.needs_known_member && join.instance.is_none() {
            self.promised.insert(join.fresh_member.clone(), now + join.session_timeout);
            return Err((ErrorCode::MemberIdRequired, join.fresh_member.clone()));
        }
        Ok(self.add(now, join, join.fresh_member.clone(), token))
    }

    fn add(&mut self, now: Duration, join: &Join, id: String, token: Token) -> Vec<Effect> {
        let mut member = Member::new(now, join);
        member.joining = Some(token);
        self.members.insert(id, member);
        self.protocol_type.get_or_insert_with(|| join.protocol_type.clone());
        self.rebalance_then_finish(now)
    }

    /// A static member is back under a new id; the old id is fenced (KIP-345).
    fn replace(&mut self, now: Duration, join: &Join, old: &str, token: Token) -> Vec<Effect> {
        let Some(mut member) = self.members.remove(old) else { return Vec::new() };
        let mut effects = fence(&mut member, old);
        let chosen = self.protocol().to_owned();
        let is_unchanged = member.metadata(&chosen) == join_metadata(join, &chosen);
        member.update(now, join);
        let id = join.fresh_member.clone();
        let was_leader = self.leader.as_deref() == Some(old);
        if was_leader {
            self.leader = Some(id.clone());
        }
        if self.state == State::Stable && is_unchanged {
            self.members.insert(id.clone(), member);
            effects
                .push(Effect::Joined(token, self.rejoined(&id, old, was_leader, join.can_skip_assignment)));
            return effects;
        }
        member.joining = Some(token);
        self.members.insert(id, member);
        effects.extend(self.rebalance_then_finish(now));
        effects
    }

    /// The answer to a static member that came back to a stable group: everything is as it was.
    fn rejoined(&self, id: &str, old: &str, was_leader: bool, can_skip: bool) -> Joined {
        let mut joined = self.joined(id);
        if was_leader && can_skip {
            joined.skip_assignment = true;
        } else if was_leader {
            old.clone_into(&mut joined.leader); // so that it takes itself for a follower, and does not assign
            joined.members.clear();
        }
        joined
    }

    fn rejoin(&mut self, now: Duration, join: &Join, token: Token) -> Vec<Effect> {
        let chosen = self.protocol().to_owned();
        let is_leader = self.leader.as_deref() == Some(join.member.as_str());
        let Some(member) = self.members.get_mut(&join.member) else { return Vec::new() };
        let is_unchanged = member.protocols == join.protocols;
        let is_share_unchanged = member.metadata(&chosen) == join_metadata(join, &chosen);
        let earlier = member.joining.take();
        member.update(now, join);
        let settled = match self.state {
            State::Completing { .. } => is_unchanged,
            State::Stable => !is_leader && is_share_unchanged,
            State::Empty | State::Preparing { .. } => false,
        };
        if settled {
            return vec![Effect::Joined(token, self.joined(&join.member))];
        }
        member.joining = Some(token);
        let replaced = |token| {
            Effect::Joined(token, Joined::failed(ErrorCode::RebalanceInProgress, join.member.clone()))
        };
        let mut effects: Vec<_> = earlier.map(replaced).into_iter().collect();
        effects.extend(self.rebalance_then_finish(now));
        effects
    }

    fn joined(&self, id: &str) -> Joined {
        let protocol = self.protocol();
        let describe = |(id, m): (&String, &Member)| (id.clone(), m.instance.clone(), m.metadata(protocol));
        let is_leader = self.leader.as_deref() == Some(id);
        Joined {
            error: ErrorCode::None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member: id.to_owned(),
            skip_assignment: false,
            members: if is_leader { self.members.iter().map(describe).collect() } else { Vec::new() },
        }
    }
}

/// Rebalancing.
impl Group {
    fn rebalance_then_finish(&mut self, now: Duration) -> Vec<Effect> {
        let mut effects = self.prepare(now);
        effects.extend(self.finish_join_if_complete(now));
        effects
    }

    /// Enters `Preparing`, unless it is there already; those that wait for their share must join again.
    fn prepare(&mut self, now: Duration) -> Vec<Effect> {
        let patience = self.members.values().map(|m| m.rebalance_timeout).max().unwrap_or_default();
        self.state = match self.state {
            State::Preparing { .. } => self.state,
            State::Empty => {
                let until = now + self.limits.initial_delay.min(patience);
                State::Preparing { until, gathering: !self.limits.initial_delay.is_zero() }
            }
            State::Completing { .. } | State::Stable => {
                State::Preparing { until: now + patience, gathering: false }
            }
        };
        let waiting = self.members.values_mut().filter_map(|m| m.syncing.take());
        waiting.map(|token| Effect::Synced(token, Synced::failed(ErrorCode::RebalanceInProgress))).collect()
    }

    fn finish_join_if_complete(&mut self, now: Duration) -> Vec<Effect> {
        let all_joined = self.promised.is_empty() && self.members.values().all(|m| m.joining.is_some());
        match self.state {
            State::Preparing { until, gathering: true } if until > now => Vec::new(),
            State::Preparing { .. } if all_joined => self.finish_join(now),
            _ => Vec::new(),
        }
    }

    /// Starts the next generation with those that have joined.
    fn finish_join(&mut self, now: Duration) -> Vec<Effect> {
        // A static member keeps its place until its session ends.
        self.members.retain(|_, m| m.joining.is_some() || m.instance.is_some());
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if !self.members.values().any(|m| m.joining.is_some()) {
            return self.nobody_joined(now);
        }
        self.protocol = self.vote();
        self.choose_leader();
        let patience = self.members.values().map(|m| m.rebalance_timeout).max().unwrap_or_default();
        self.state = State::Completing { until: now + patience };
        let mut joined = Vec::new();
        for (id, member) in &mut self.members {
            member.synced = false;
            member.assignment = Bytes::new();
            if let Some(token) = member.joining.take() {
                member.heard(now);
                joined.push((id.clone(), token));
            }
        }
        joined.into_iter().map(|(id, token)| Effect::Joined(token, self.joined(&id))).collect()
    }

    fn nobody_joined(&mut self, now: Duration) -> Vec<Effect> {
        self.protocol = None;
        self.leader = None;
        if self.members.is_empty() {
            self.protocol_type = None;
            self.state = State::Empty;
        } else {
            let patience = self.members.values().map(|m| m.rebalance_timeout).max().unwrap_or_default();
            self.state =
                State::Preparing { until: now + patience.max(self.limits.session_min), gathering: false };
        }
        Vec::new()
    }

    /// The protocol that most members like best, of those that all know.
    fn vote(&self) -> Option<String> {
        let shared = |name: &str| self.members.values().all(|member| member.knows(name));
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| shared(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name.to_owned())
    }

    fn choose_leader(&mut self) {
        let joined = |id: &String| self.members.get(id).is_some_and(|m| m.joining.is_some());
        if self.leader.as_ref().is_some_and(joined) {
            return;
        }
        let first = self.members.iter().find(|(_, m)| m.joining.is_some());
        self.leader = first.map(|(id, _)| id.clone());
    }

    /// The leader has spoken: everybody gets a share.
    fn assign(
        &mut self,
        now: Duration,
        shares: Vec<(String, Bytes)>,
        leader: &str,
        token: Token,
    ) -> Vec<Effect> {
        for (id, share) in shares {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = share;
            }
        }
        self.state = State::Stable;
        let mut waiting = vec![(leader.to_owned(), token)];
        for (id, member) in &mut self.members {
            if let Some(token) = member.syncing.take() {
                member.heard(now);
                waiting.push((id.clone(), token));
            }
        }
        waiting.into_iter().map(|(id, token)| Effect::Synced(token, self.share(&id))).collect()
    }

    fn share(&self, id: &str) -> Synced {
        Synced {
            error: ErrorCode::None,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self.members.get(id).map(|m| m.assignment.clone()).unwrap_or_default(),
        }
    }

    fn remove(&mut self, now: Duration, id: &str) -> Vec<Effect> {
        let Some(mut member) = self.members.remove(id) else { return Vec::new() };
        let mut effects = Vec::new();
        if let Some(token) = member.joining.take() {
            effects.push(Effect::Joined(token, Joined::failed(ErrorCode::UnknownMemberId, id.to_owned())));
        }
        if let Some(token) = member.syncing.take() {
            effects.push(Effect::Synced(token, Synced::failed(ErrorCode::UnknownMemberId)));
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = None;
        }
        if self.members.is_empty() {
            self.generation = self.generation.checked_add(1).unwrap_or(1);
            effects.extend(self.nobody_joined(now));
        } else {
            effects.extend(self.rebalance_then_finish(now));
        }
        effects
    }

    /// The time to sync is up: those that did not, go; the rest starts again.
    fn drop_unsynced(&mut self, now: Duration) -> Vec<Effect> {
        let silent: Vec<String> =
            self.members.iter().filter(|(_, m)| !m.synced).map(|(id, _)| id.clone()).collect();
        let mut effects = Vec::new();
        for id in silent {
            effects.extend(self.remove(now, &id));
        }
        if let State::Completing { .. } = self.state {
            effects.extend(self.prepare(now));
        }
        effects
    }
}

/// Checks of who speaks.
impl Group {
    fn check_member(&self, who: &Who) -> Result<(), ErrorCode> {
        if let Some(current) = who.instance.as_deref().and_then(|instance| self.member_of(instance))
            && current != who.member
        {
            return Err(ErrorCode::FencedInstanceId);
        }
        if !self.members.contains_key(&who.member) {
            return Err(ErrorCode::UnknownMemberId);
        }
        if who.generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        Ok(())
    }

    fn check_sync(&self, sync: &Sync) -> Result<(), ErrorCode> {
        self.check_member(&sync.who)?;
        let differs = |claimed: &Option<String>, own: &Option<String>| claimed.is_some() && claimed != own;
        if let State::Preparing { .. } = self.state {
            return Err(ErrorCode::RebalanceInProgress);
        }
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }
}

fn is_same_instance(member: &Member, join: &Join) -> bool {
    member.instance.is_some() && member.instance == join.instance
}

fn join_metadata(join: &Join, protocol: &str) -> Bytes {
    let of = join.protocols.iter().find(|(name, _)| name == protocol);
    of.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
}

/// Answers whatever the former holder of a static member's place waits for.
fn fence(member: &mut Member, id: &str) -> Vec<Effect> {
    let mut effects = Vec::new();
    if let Some(token) = member.joining.take() {
        effects.push(Effect::Joined(token, Joined::failed(ErrorCode::FencedInstanceId, id.to_owned())));
    }
    if let Some(token) = member.syncing.take() {
        effects.push(Effect::Synced(token, Synced::failed(ErrorCode::FencedInstanceId)));
    }
    effects
}
