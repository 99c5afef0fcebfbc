//! Runs the groups' state machines: hands them requests and the time, and answers those that wait.

use crate::core::group::{Effect, Group, Join, Joined, Limits, MemberView, Sync, Synced, Token, Who};
use crate::wire::ErrorCode;
use kiln_world::Clock;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// A group and those that wait for it.
struct Slot {
    group: Group,
    joins: HashMap<Token, oneshot::Sender<Joined>>,
    syncs: HashMap<Token, oneshot::Sender<Synced>>,
}

/// All groups with members.
pub(crate) struct Coordinator {
    slots: Mutex<HashMap<String, Arc<Mutex<Slot>>>>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    groups_max: usize,
    tokens: AtomicU64,
    /// When the timer will next look, in milliseconds of the monotonic clock.
    wakes_at: AtomicU64,
    sooner: Notify,
}

/// A group as `DescribeGroups` shows it.
#[derive(Debug, Clone)]
pub(crate) struct GroupView {
    pub(crate) state: &'static str,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) members: Vec<MemberView>,
}

/// Tells the group when whoever waits has gone.
struct Abandon {
    slot: Arc<Mutex<Slot>>,
    token: Token,
}

impl Drop for Abandon {
    fn drop(&mut self) {
        let mut slot = lock(&self.slot);
        let waited = slot.joins.remove(&self.token).is_some() | slot.syncs.remove(&self.token).is_some();
        if waited {
            slot.group.abandon(self.token);
        }
    }
}

impl Coordinator {
    pub(crate) fn new(clock: Arc<dyn Clock>, limits: Limits, groups_max: usize) -> Self {
        Self {
            slots: Mutex::default(),
            clock,
            limits,
            groups_max,
            tokens: AtomicU64::new(0),
            wakes_at: AtomicU64::new(0),
            sooner: Notify::new(),
        }
    }

    /// Joins, and waits for the others.
    pub(crate) async fn join(&self, group: &str, join: Join) -> Joined {
        let member = join.member.clone();
        let Some(slot) = self.slot_or_new(group) else {
            return Joined::failed(ErrorCode::CoordinatorNotAvailable, member);
        };
        let (sender, answer) = oneshot::channel();
        let token = self.token();
        {
            let mut slot = lock(&slot);
            slot.joins.insert(token, sender);
            let effects = slot.group.join(self.now(), &join, token);
            self.settle(&mut slot, effects);
        }
        let _abandon = Abandon { slot, token };
        answer.await.unwrap_or_else(|_| Joined::failed(ErrorCode::CoordinatorNotAvailable, member))
    }

    /// Hands out, or waits for, the assignment.
    pub(crate) async fn sync(&self, group: &str, sync: Sync) -> Synced {
        let Some(slot) = self.slot(group) else { return Synced::failed(ErrorCode::UnknownMemberId) };
        let (sender, answer) = oneshot::channel();
        let token = self.token();
        {
            let mut slot = lock(&slot);
            slot.syncs.insert(token, sender);
            let effects = slot.group.sync(self.now(), sync, token);
            self.settle(&mut slot, effects);
        }
        let _abandon = Abandon { slot, token };
        answer.await.unwrap_or_else(|_| Synced::failed(ErrorCode::CoordinatorNotAvailable))
    }

    pub(crate) fn heartbeat(&self, group: &str, who: &Who) -> ErrorCode {
        let Some(slot) = self.slot(group) else { return ErrorCode::UnknownMemberId };
        lock(&slot).group.heartbeat(self.now(), who)
    }

    /// Whether offsets may be committed; anybody may for a group without members.
    pub(crate) fn may_commit(&self, group: &str, who: &Who) -> ErrorCode {
        match self.slot(group) {
            Some(slot) => lock(&slot).group.may_commit(self.now(), who),
            None if who.generation < 0 && who.member.is_empty() => ErrorCode::None,
            None => ErrorCode::UnknownMemberId,
        }
    }

    pub(crate) fn leave(&self, group: &str, member: &str, instance: Option<&str>) -> ErrorCode {
        let Some(slot) = self.slot(group) else { return ErrorCode::UnknownMemberId };
        let mut slot = lock(&slot);
        let (error, effects) = slot.group.leave(self.now(), member, instance);
        self.settle(&mut slot, effects);
        error
    }

    /// A group that has, or just had, members.
    pub(crate) fn describe(&self, group: &str) -> Option<GroupView> {
        self.slot(group).map(|slot| view(&lock(&slot).group))
    }

    /// All groups that have, or just had, members.
    pub(crate) fn list(&self) -> Vec<(String, GroupView)> {
        let slots: Vec<_> =
            lock(&self.slots).iter().map(|(name, slot)| (name.clone(), slot.clone())).collect();
        slots.into_iter().map(|(name, slot)| (name, view(&lock(&slot).group))).collect()
    }

    /// Whether a group has members.
    pub(crate) fn has_members(&self, group: &str) -> bool {
        self.slot(group).is_some_and(|slot| !lock(&slot).group.is_idle())
    }

    /// Ends sessions and rebalances whose time is up, then pauses until the next, for `pause_max` at most.
    pub(crate) async fn run_until(&self, pause_max: Duration) {
        // Any deadline that is set while we look is sooner than this, and leaves a notice.
        self.wakes_at.store(u64::MAX, Ordering::Release);
        let next = self.tick();
        self.wakes_at.store(next.map_or(u64::MAX, |at| at.as_millis() as u64), Ordering::Release);
        let pause = next.map_or(pause_max, |at| at.saturating_sub(self.now())).min(pause_max);
        let _ = tokio::time::timeout(pause.max(Duration::from_millis(1)), self.sooner.notified()).await;
    }

    /// Moves every group to the present; when the next one has something to do.
    fn tick(&self) -> Option<Duration> {
        let slots: Vec<_> = lock(&self.slots).values().cloned().collect();
        let now = self.now();
        let mut next = None;
        for slot in slots {
            let mut slot = lock(&slot);
            let effects = slot.group.tick(now);
            answer(&mut slot, effects);
            next = [next, slot.group.next_tick()].into_iter().flatten().min();
        }
        // Nobody else can hold a slot whose only owner is the map, which is locked.
        lock(&self.slots).retain(|_, slot| Arc::strong_count(slot) > 1 || !lock(slot).group.is_idle());
        next
    }

    fn settle(&self, slot: &mut Slot, effects: Vec<Effect>) {
        answer(slot, effects);
        let next = slot.group.next_tick().map_or(u64::MAX, |at| at.as_millis() as u64);
        if next < self.wakes_at.load(Ordering::Acquire) {
            self.sooner.notify_one();
        }
    }

    fn slot(&self, group: &str) -> Option<Arc<Mutex<Slot>>> {
        lock(&self.slots).get(group).cloned()
    }

    fn slot_or_new(&self, group: &str) -> Option<Arc<Mutex<Slot>>> {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.get(group) {
            return Some(slot.clone());
        }
        if slots.len() >= self.groups_max {
            return None;
        }
        let new =
            Slot { group: Group::new(self.limits.clone()), joins: HashMap::new(), syncs: HashMap::new() };
        let slot = Arc::new(Mutex::new(new));
        slots.insert(group.to_owned(), slot.clone());
        Some(slot)
    }

    fn token(&self) -> Token {
        Token(self.tokens.fetch_add(1, Ordering::Relaxed))
    }

    fn now(&self) -> Duration {
        self.clock.monotonic()
    }
}

/// Answers those that wait; who has gone in the meantime is not there to be answered.
fn answer(slot: &mut Slot, effects: Vec<Effect>) {
    for effect in effects {
        match effect {
            Effect::Joined(token, joined) => {
                if let Some(sender) = slot.joins.remove(&token) {
                    let _ = sender.send(joined);
                }
            }
            Effect::Synced(token, synced) => {
                if let Some(sender) = slot.syncs.remove(&token) {
                    let _ = sender.send(synced);
                }
            }
        }
    }
}

fn view(group: &Group) -> GroupView {
    GroupView {
        state: group.state().name(),
        protocol_type: group.protocol_type().to_owned(),
        protocol: group.protocol().to_owned(),
        members: group.members(),
    }
}

/// No step of a group's machine leaves it half changed, so a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
