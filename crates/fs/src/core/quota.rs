//! Quotas: what users, groups and projects use, and may use.
//!
//! A limit is soft or hard. What is above a soft limit may stay, and grow, for a time of grace; when that is over, or at the
//! hard limit, nothing more is given (quotactl(2)).

use serde::{Deserialize, Serialize};

use super::Attr;

/// Bytes of a unit of space.
pub const BLOCK_BYTES: u64 = 512;
/// The grace of a new filesystem, in seconds: a week.
pub const GRACE_SECS: u64 = 7 * 24 * 60 * 60;

/// Whose quota it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum QuotaKind {
    /// A user's.
    User,
    /// A group's.
    Group,
    /// A project's; 0 is what belongs to none.
    Project,
}

impl QuotaKind {
    /// All of them.
    pub const ALL: [QuotaKind; 3] = [QuotaKind::User, QuotaKind::Group, QuotaKind::Project];
}

/// Who pays for an inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Project.
    pub project: u32,
}

impl Owner {
    /// The owner's id of a kind.
    pub fn id(self, kind: QuotaKind) -> u32 {
        match kind {
            QuotaKind::User => self.uid,
            QuotaKind::Group => self.gid,
            QuotaKind::Project => self.project,
        }
    }
}

impl From<&Attr> for Owner {
    fn from(attr: &Attr) -> Owner {
        Owner { uid: attr.uid, gid: attr.gid, project: attr.project }
    }
}

/// Limits of a resource; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// May be passed for a time.
    pub soft: u64,
    /// May not be passed.
    pub hard: u64,
}

impl Limits {
    /// There is none.
    pub fn is_none(self) -> bool {
        self == Limits::default()
    }
}

/// What is used of a resource, and may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// What is used.
    pub used: u64,
    /// What may be.
    pub limits: Limits,
    /// When the soft limit becomes a hard one, in seconds since the epoch. **Invariant:** set while, and only while, there is
    /// a soft limit and more is used.
    pub grace_ends: Option<i64>,
}

impl Tally {
    /// Uses more or less, and starts or ends the grace.
    pub fn change(&mut self, by: i64, now_secs: i64, grace_secs: u64) {
        self.used = self.used.saturating_add_signed(by);
        self.begin_or_end_grace(now_secs, grace_secs);
    }

    /// Sets the limits; a grace that runs goes on.
    pub fn limit(&mut self, limits: Limits, now_secs: i64, grace_secs: u64) {
        self.limits = limits;
        self.begin_or_end_grace(now_secs, grace_secs);
    }

    fn begin_or_end_grace(&mut self, now_secs: i64, grace_secs: u64) {
        let over = self.limits.soft > 0 && self.used > self.limits.soft;
        self.grace_ends =
            over.then(|| self.grace_ends.unwrap_or(now_secs.saturating_add_unsigned(grace_secs)));
    }

    /// What is left before nothing more is given; `None` without a limit.
    pub fn room(&self, now_secs: i64) -> Option<u64> {
        let is_over = self.grace_ends.is_some_and(|ends| now_secs >= ends);
        let hard = (self.limits.hard > 0).then_some(self.limits.hard);
        let soft = is_over.then_some(self.limits.soft);
        let end = hard.into_iter().chain(soft).min()?;
        Some(end.saturating_sub(self.used))
    }

    /// Whether so much more may be used.
    pub fn has_room(&self, more: u64, now_secs: i64) -> bool {
        self.room(now_secs).is_none_or(|room| more <= room)
    }
}

/// What one user, group or project uses and may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Space, in units of [`BLOCK_BYTES`].
    pub space: Tally,
    /// Inodes.
    pub inodes: Tally,
}

/// How long more than the soft limit may be used, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grace {
    /// Of space.
    pub space_secs: u64,
    /// Of inodes.
    pub inode_secs: u64,
}

impl Default for Grace {
    fn default() -> Grace {
        Grace { space_secs: GRACE_SECS, inode_secs: GRACE_SECS }
    }
}

/// A change of limits; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetLimits {
    /// The soft one.
    pub soft: Option<u64>,
    /// The hard one.
    pub hard: Option<u64>,
}

impl SetLimits {
    /// The limits as they are then.
    pub fn over(self, old: Limits) -> Limits {
        Limits { soft: self.soft.unwrap_or(old.soft), hard: self.hard.unwrap_or(old.hard) }
    }
}

/// What an administrator sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetQuota {
    /// The limits of one user, group or project.
    Limits {
        /// Which one.
        id: u32,
        /// Of space, in units of [`BLOCK_BYTES`].
        space: SetLimits,
        /// Of inodes.
        inodes: SetLimits,
    },
    /// The grace of all of a kind. What runs already ends when it would have.
    Grace {
        /// Of space, in seconds.
        space_secs: Option<u64>,
        /// Of inodes, in seconds.
        inode_secs: Option<u64>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK: u64 = GRACE_SECS;

    fn tally(soft: u64, hard: u64) -> Tally {
        Tally { limits: Limits { soft, hard }, ..Tally::default() }
    }

    #[test]
    fn without_limits_there_is_always_room() {
        let mut tally = tally(0, 0);
        tally.change(i64::MAX, 0, WEEK);
        assert_eq!((tally.room(i64::MAX), tally.grace_ends), (None, None));
        assert!(tally.has_room(u64::MAX, 0));
    }

    #[test]
    fn the_hard_limit_may_be_reached_and_not_passed() {
        let mut tally = tally(0, 10);
        tally.change(7, 0, WEEK);
        assert!(tally.has_room(3, 0) && !tally.has_room(4, 0));
        tally.change(7, 0, WEEK);
        assert_eq!((tally.used, tally.room(0)), (14, Some(0)), "what is stored already is counted");
        tally.change(-14, 0, WEEK);
        assert_eq!(tally.room(0), Some(10));
    }

    #[test]
    fn the_soft_limit_holds_when_the_grace_is_over() {
        let mut tally = tally(5, 10);
        tally.change(5, 100, 50);
        assert_eq!((tally.grace_ends, tally.room(1000)), (None, Some(5)), "at the limit is not over it");
        tally.change(1, 100, 50);
        tally.change(1, 120, 50);
        assert_eq!(tally.grace_ends, Some(150), "it runs from when the limit was passed first");
        assert_eq!((tally.room(149), tally.room(150)), (Some(3), Some(0)));
        tally.change(-2, 200, 50);
        assert_eq!((tally.grace_ends, tally.room(200)), (None, Some(5)));
        tally.change(3, 210, 50);
        assert_eq!(tally.grace_ends, Some(260), "it begins anew");
    }

    #[test]
    fn limits_that_are_set_start_and_end_the_grace() {
        let mut tally = tally(0, 0);
        tally.change(8, 0, 50);
        tally.limit(Limits { soft: 5, hard: 0 }, 100, 50);
        assert_eq!((tally.grace_ends, tally.room(149), tally.room(150)), (Some(150), None, Some(0)));
        tally.limit(Limits { soft: 6, hard: 20 }, 120, 50);
        assert_eq!((tally.grace_ends, tally.room(149)), (Some(150), Some(12)), "it goes on");
        tally.limit(Limits { soft: 8, hard: 20 }, 130, 50);
        assert_eq!(tally.grace_ends, None);
        let set = SetLimits { soft: None, hard: Some(0) };
        assert_eq!(set.over(tally.limits), Limits { soft: 8, hard: 0 });
    }
}
