//! What users, groups and projects use: kept with every change of an inode, and held against their limits.
//!
//! **Invariant:** what an account says is used is the sum over all inodes of its owner, also of those that have no name any
//! more. It holds because accounts are settled once for a whole command, from the rows of inodes that it changes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::inode::Inode;
use super::keys;
use super::rows::{Changes, Row, Rows, load};
use super::transaction::{ROOT, Transaction};
use crate::core::quota::{Account, BLOCK_BYTES, Grace, Owner, QuotaKind, SetQuota, Tally};
use crate::core::{Attr, Errno, Time};
use crate::wire::mds::{Act, Answer, Cred};

/// What holds for all accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Quotas {
    user: Grace,
    group: Grace,
    project: Grace,
    /// Accounts that have a limit.
    limited: u32,
}

impl Row for Quotas {
    const VERSION: u8 = 1;
}

impl Row for Account {
    const VERSION: u8 = 1;
}

impl Quotas {
    fn grace(&self, kind: QuotaKind) -> Grace {
        match kind {
            QuotaKind::User => self.user,
            QuotaKind::Group => self.group,
            QuotaKind::Project => self.project,
        }
    }

    fn grace_mut(&mut self, kind: QuotaKind) -> &mut Grace {
        match kind {
            QuotaKind::User => &mut self.user,
            QuotaKind::Group => &mut self.group,
            QuotaKind::Project => &mut self.project,
        }
    }
}

/// What an act may be refused for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Enforced {
    space: bool,
    inodes: bool,
}

impl Enforced {
    /// Nothing: what the server does itself, and what is true already.
    pub(super) const NOTHING: Enforced = Enforced { space: false, inodes: false };

    /// Root may pass every limit. What was written at the OSTs is stored, and only counted; that a directory grows is not
    /// held against its owner, whoever made the name.
    pub(super) fn of(act: &Act, cred: &Cred) -> Enforced {
        if cred.uid == ROOT {
            return Enforced::NOTHING;
        }
        match act {
            Act::Make { .. } | Act::MakeUnnamed { .. } => Enforced { space: false, inodes: true },
            Act::Setattr { .. } | Act::WriteInline { .. } | Act::SwapLayouts { .. } => {
                Enforced { space: true, inodes: true }
            }
            _ => Enforced::NOTHING,
        }
    }
}

/// What an account gains and loses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Delta {
    blocks: i64,
    inodes: i64,
}

/// By account.
#[derive(Default)]
struct Deltas(BTreeMap<(QuotaKind, u32), Delta>);

impl Deltas {
    /// Adds an inode `sign` times.
    fn add(&mut self, attr: &Attr, sign: i64) {
        let owner = Owner::from(attr);
        for kind in QuotaKind::ALL {
            let delta = self.0.entry((kind, owner.id(kind))).or_default();
            let blocks = i64::try_from(attr.blocks).unwrap_or(i64::MAX);
            delta.blocks = delta.blocks.saturating_add(sign * blocks);
            delta.inodes += sign;
        }
    }

    /// The first rows of accounts, where nothing is limited.
    fn rows(self) -> Changes {
        let mut changes = Changes::from([(keys::QUOTAS.to_vec(), Some(Quotas::default().encode()))]);
        for ((kind, id), delta) in self.0 {
            let mut account = Account::default();
            account.space.change(delta.blocks, 0, 0);
            account.inodes.change(delta.inodes, 0, 0);
            changes.insert(keys::account(kind, id).to_vec(), Some(account.encode()));
        }
        changes
    }
}

/// Brings the accounts up to the inodes that a command has changed, or refuses it with `EDQUOT`.
pub(super) fn settle(transaction: &mut Transaction<'_>, enforced: Enforced) -> Result<(), Errno> {
    let deltas = transaction.deltas()?;
    let changed = deltas.0.into_iter().filter(|(_, delta)| *delta != Delta::default());
    let changed: Vec<_> = changed.collect();
    if changed.is_empty() {
        return Ok(());
    }
    let (quotas, now) = (quotas(transaction)?, transaction.now.secs);
    for ((kind, id), delta) in changed {
        let mut account = account(transaction, kind, id)?;
        let is_refused = enforced.space && !fits(&account.space, delta.blocks, now)
            || enforced.inodes && !fits(&account.inodes, delta.inodes, now);
        if is_refused {
            return Err(Errno::EDQUOT);
        }
        let grace = quotas.grace(kind);
        account.space.change(delta.blocks, now, grace.space_secs);
        account.inodes.change(delta.inodes, now, grace.inode_secs);
        put(transaction, kind, id, &account);
    }
    Ok(())
}

/// What is given back is taken whatever the limit is.
fn fits(tally: &Tally, by: i64, now_secs: i64) -> bool {
    by <= 0 || tally.has_room(by.unsigned_abs(), now_secs)
}

impl Transaction<'_> {
    /// What the inodes that are changed so far mean for accounts.
    fn deltas(&self) -> Result<Deltas, Errno> {
        let mut deltas = Deltas::default();
        for (after, before) in self.changed_rows(&keys::all_inodes()) {
            if let Some(before) = before? {
                deltas.add(&Inode::decode(&before)?.attr, -1);
            }
            if let Some(after) = after {
                deltas.add(&Inode::decode(after)?.attr, 1);
            }
        }
        Ok(deltas)
    }
}

/// An account without anything is no row.
fn put(transaction: &mut Transaction<'_>, kind: QuotaKind, id: u32, account: &Account) {
    let key = keys::account(kind, id);
    if *account == Account::default() {
        transaction.delete(&key);
    } else {
        transaction.put(&key, account.encode());
    }
}

fn quotas(rows: &dyn Rows) -> Result<Quotas, Errno> {
    Ok(load(rows, keys::QUOTAS)?.unwrap_or_default())
}

fn account(rows: &dyn Rows, kind: QuotaKind, id: u32) -> Result<Account, Errno> {
    Ok(load(rows, &keys::account(kind, id))?.unwrap_or_default())
}

/// What an account uses and may use.
pub(super) fn ask(rows: &dyn Rows, kind: QuotaKind, id: u32) -> Result<Answer, Errno> {
    Ok(Answer::Quota(account(rows, kind, id)?, quotas(rows)?.grace(kind)))
}

/// Sets limits and grace.
pub(super) fn set(
    transaction: &mut Transaction<'_>,
    kind: QuotaKind,
    set: &SetQuota,
    cred: &Cred,
) -> Result<Answer, Errno> {
    if cred.uid != ROOT {
        return Err(Errno::EPERM);
    }
    let mut quotas = quotas(transaction)?;
    match *set {
        SetQuota::Limits { id, space, inodes } => {
            let mut account = account(transaction, kind, id)?;
            let had = is_limited(&account);
            let (now, grace) = (transaction.now.secs, quotas.grace(kind));
            account.space.limit(space.over(account.space.limits), now, grace.space_secs);
            account.inodes.limit(inodes.over(account.inodes.limits), now, grace.inode_secs);
            let has = is_limited(&account);
            quotas.limited = (quotas.limited + u32::from(has)).saturating_sub(u32::from(had));
            put(transaction, kind, id, &account);
        }
        SetQuota::Grace { space_secs, inode_secs } => {
            let grace = quotas.grace_mut(kind);
            grace.space_secs = space_secs.unwrap_or(grace.space_secs);
            grace.inode_secs = inode_secs.unwrap_or(grace.inode_secs);
        }
    }
    transaction.put(keys::QUOTAS, quotas.encode());
    Ok(Answer::Done)
}

fn is_limited(account: &Account) -> bool {
    !account.space.limits.is_none() || !account.inodes.limits.is_none()
}

/// How much more space an owner may use, in bytes; `None` where nothing limits him.
pub fn room(rows: &dyn Rows, owner: Owner, now: Time) -> Result<Option<u64>, Errno> {
    if quotas(rows)?.limited == 0 {
        return Ok(None);
    }
    let mut least = None;
    for kind in QuotaKind::ALL {
        let blocks = account(rows, kind, owner.id(kind))?.space.room(now.secs);
        let room = blocks.map(|blocks| blocks.saturating_mul(BLOCK_BYTES));
        least = [least, room].into_iter().flatten().min();
    }
    Ok(least)
}

/// The rows of accounts of an MDT that has none yet; `None` when it has.
pub fn recount(rows: &dyn Rows) -> Result<Option<Changes>, Errno> {
    if rows.get(keys::QUOTAS)?.is_some() {
        return Ok(None);
    }
    let mut deltas = Deltas::default();
    let mut sound = true;
    let (from, to) = keys::all_inodes();
    rows.scan(&from, &to, &mut |_, row| {
        match Inode::decode(row) {
            Ok(inode) => deltas.add(&inode.attr, 1),
            Err(_) => sound = false,
        }
        ControlFlow::Continue(())
    })?;
    if !sound {
        return Err(Errno::EIO);
    }
    Ok(Some(deltas.rows()))
}

/// The rows of accounts of an MDT with this inode alone, or none.
pub(super) fn first(root: Option<&Attr>) -> Changes {
    let mut deltas = Deltas::default();
    if let Some(attr) = root {
        deltas.add(attr, 1);
    }
    deltas.rows()
}
