//! What clients ask the MDS, and what the MDS asks of them.
//!
//! ```text
//! client -> MDS   Hello, then any number of connections with Ask and Change; Callbacks on one of its own
//! MDS -> client   items of Callbacks: give this lease back; answered by Ack on any connection
//! ```
//!
//! **Leases.** With an answer the MDS grants leases ([`Grant`]): what the client may keep, until it is called back. Before
//! anybody's change is applied, every other session that holds a lease on what changes has acknowledged a callback, or was
//! evicted. An answer carries the number `seq` that the MDS had when it was made, and each callback has a new, higher one:
//! what an answer says about an inode is stale, and is not kept, when a callback for that inode with a higher number came
//! before it.

use serde::{Deserialize, Serialize};

use crate::core::jobs::JobDelta;
use crate::core::layout::{Layout, Spread};
use crate::core::quota::{Account, Grace, QuotaKind, SetQuota};
use crate::core::{Attr, Errno, FileKind, Ino, OstIndex, SessionId, SetAttr, Time, Xid};
use crate::wire::mgs::FsId;
use crate::wire::oss::Space;

/// A request to the MDS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Of which filesystem; a server that does not serve its MDT answers `ENODEV`.
    pub fs: String,
    /// Which one of that name: after `destroy` and `create`, a mount of the old one changes nothing in the new one.
    pub id: FsId,
    /// Who asks.
    pub session: SessionId,
    /// What is asked.
    pub op: Op,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Begins a session, or goes on with it after the connection or the MDS was gone: [`Answer::Welcome`].
    Hello(Hello),
    /// Ends a session: everything it holds is free.
    Bye,
    /// The stream of [`Callback`]s. A session has one; a new one replaces the old.
    Callbacks,
    /// Callbacks are done.
    Ack(Vec<Acked>),
    /// The session lives. Sent when nothing else was for a third of [`Welcome::session_secs`].
    Ping,
    /// Something that changes nothing.
    Ask(Ask),
    /// A change.
    Change(Change),
    /// File and record locks.
    Lock(Lock),
    /// What jobs did on this mount since that was last told.
    Jobs(Vec<JobDelta>),
    /// A change that is answered when it, and all that this session changed before, outlives a loss of power: [`Ask::Sync`]
    /// in the same call.
    DurableChange(Change),
}

/// The start of a session, or of going on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::wire::VERSION`]
    pub version: u32,
    /// The client's host, for people.
    pub host: String,
    /// What a client holds that has been here before: it is granted again, unless the session was evicted meanwhile.
    pub held: Vec<Held>,
    /// File and record locks that the client holds.
    pub locks: Vec<HeldLock>,
}

/// What a session holds on one inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The inode.
    pub ino: Ino,
    /// Leases.
    pub leases: Leases,
    /// Its programs have it open: it stays until they close it, also without a name.
    pub open: bool,
}

/// Leases on one inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leases {
    /// Attributes, extended attributes, the target of a link, the layout.
    pub meta: bool,
    /// Of a directory: which names are there, and which are not.
    pub names: bool,
    /// Of a file: its data.
    pub data: DataLease,
}

/// What a session may do with a file's data without asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DataLease {
    /// Nothing.
    #[default]
    None,
    /// Keep what it read. Shared with others that read.
    Read,
    /// Read and write at the OSTs, keep nothing. Shared with others that do the same.
    Direct,
    /// Everything: keep what it read, hold back what it writes, and say what size and times are. Shared with nobody.
    Write,
}

/// A lease that came with an answer; with what the session held before, it holds the union.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// On which inode.
    pub ino: Ino,
    /// Which leases; of data this is the mode that the session has now.
    pub leases: Leases,
}

/// Something that changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// A name in a directory: [`Answer::Entry`], or `ENOENT`, which is granted like a name that is there.
    Lookup {
        /// The directory.
        parent: Ino,
        /// The name.
        name: Vec<u8>,
    },
    /// The attributes: [`Answer::Attr`].
    Getattr {
        /// Of what.
        ino: Ino,
    },
    /// Opens a file: [`Answer::Opened`]. The session has it open until [`Ask::Close`].
    Open {
        /// Which file.
        ino: Ino,
        /// For writing.
        write: bool,
        /// Send the first bytes along, at most so many, when they are on the MDT.
        data_max: u32,
    },
    /// The last program of the session that had these open has closed them.
    Close {
        /// Which files.
        inos: Vec<Ino>,
    },
    /// A data lease: answered by its [`Grant`] with [`Answer::Opened`], as the file is then: others may have
    /// given it objects since.
    Lease {
        /// On which file.
        ino: Ino,
        /// Which.
        want: DataLease,
    },
    /// Leases that the client does not need any more. Nothing is invalid by that; answered by [`Answer::Done`].
    Release {
        /// What it holds no more, by inode.
        leases: Vec<(Ino, Leases)>,
    },
    /// The target of a symbolic link: [`Answer::Bytes`].
    Readlink {
        /// The link.
        ino: Ino,
    },
    /// Names of a directory: [`Answer::Names`].
    Readdir {
        /// The directory.
        ino: Ino,
        /// The cursor of the last name that the client has; 0 begins.
        after: u64,
        /// Names of at most so many bytes, attributes included.
        bytes_max: u32,
        /// With attributes, and leases on them.
        plus: bool,
    },
    /// The value of an extended attribute: [`Answer::Bytes`], or `ENODATA`.
    GetXattr {
        /// Of what.
        ino: Ino,
        /// Its name, prefix included.
        name: Vec<u8>,
    },
    /// The names of extended attributes: [`Answer::Bytes`], each with a NUL behind it.
    ListXattr {
        /// Of what.
        ino: Ino,
    },
    /// Where the bytes of a file are: [`Answer::Layout`].
    Layout {
        /// Which file.
        ino: Ino,
    },
    /// The layout that new files in a directory get: [`Answer::Spread`].
    Default {
        /// The directory.
        ino: Ino,
    },
    /// Bytes on the MDT: [`Answer::Data`], the bulk. Shorter at the end of the file.
    ReadInline {
        /// Which file.
        ino: Ino,
        /// From where.
        offset: u64,
        /// At most so many.
        len: u32,
    },
    /// Everything that this session changed is on the disk of the MDT when this is answered.
    Sync,
    /// Space and inodes of the MDT and of each OST: [`Answer::Space`].
    Statfs,
    /// Paths from the root that lead to an inode, at most so many: [`Answer::Paths`].
    Paths {
        /// Which inode.
        ino: Ino,
        /// At most.
        count_max: u32,
    },
    /// What a user, a group or a project uses and may use: [`Answer::Quota`].
    Quota {
        /// Which of them.
        kind: QuotaKind,
        /// Its number.
        id: u32,
    },
}

/// A change. It is answered when no kill -9 of the MDS can undo it; [`Ask::Sync`] makes it outlive a loss of power.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its number in the session; a repeat is answered as the first was.
    pub xid: Xid,
    /// The client has the answers to every change below.
    pub done_below: Xid,
    /// On whose behalf.
    pub cred: Cred,
    /// What changes.
    pub act: Act,
}

/// Who acts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cred {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The job that it belongs to, for statistics and the changelog; empty when that is not known. At most
    /// [`JOB_BYTES_MAX`](crate::wire::JOB_BYTES_MAX).
    pub job: String,
}

/// What changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// A new name with a new inode: [`Answer::Entry`]; of a file that is opened at once, [`Answer::Opened`].
    Make {
        /// The directory.
        parent: Ino,
        /// The name.
        name: Vec<u8>,
        /// Permissions, the umask not yet taken off.
        mode: u16,
        /// The creator's umask; not applied where the directory has a default ACL.
        umask: u16,
        /// What it is.
        what: Make,
    },
    /// A file without a name (`O_TMPFILE`), open in this session: [`Answer::Opened`].
    MakeUnnamed {
        /// The directory that it could be linked into.
        parent: Ino,
        /// Permissions.
        mode: u16,
        /// The creator's umask.
        umask: u16,
    },
    /// Another name: [`Answer::Entry`].
    Link {
        /// For which inode.
        ino: Ino,
        /// In which directory.
        parent: Ino,
        /// The name.
        name: Vec<u8>,
    },
    /// Takes a name away from what is no directory.
    Unlink {
        /// The directory.
        parent: Ino,
        /// The name.
        name: Vec<u8>,
    },
    /// Takes an empty directory away.
    Rmdir {
        /// The directory it is in.
        parent: Ino,
        /// The name.
        name: Vec<u8>,
    },
    /// Another place, another name, or both.
    Rename {
        /// From this directory.
        from: Ino,
        /// This name.
        from_name: Vec<u8>,
        /// To this directory.
        to: Ino,
        /// Under this name.
        to_name: Vec<u8>,
        /// What becomes of what has the new name.
        how: Rename,
    },
    /// Attributes: [`Answer::Attr`].
    Setattr {
        /// Of what.
        ino: Ino,
        /// Which, and to what.
        set: SetAttr,
    },
    /// An extended attribute.
    SetXattr {
        /// Of what.
        ino: Ino,
        /// Its name, prefix included. POSIX ACLs are `system.posix_acl_access` and `system.posix_acl_default`.
        name: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
        /// Whether it must, or must not, be there.
        how: XattrHow,
    },
    /// Takes an extended attribute away.
    RemoveXattr {
        /// Of what.
        ino: Ino,
        /// Its name.
        name: Vec<u8>,
    },
    /// Writes the bulk into the part of a file that is on the MDT: [`Answer::Attr`].
    WriteInline {
        /// Which file.
        ino: Ino,
        /// To where.
        offset: u64,
        /// CRC32C of the bulk.
        crc: u32,
        /// When it was written.
        mtime: Time,
    },
    /// Zeros a range of the part of a file that is on the MDT.
    ZeroInline {
        /// Which file.
        ino: Ino,
        /// From where.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// The session wrote at the OSTs: [`Answer::Attr`].
    Written {
        /// Which file.
        ino: Ino,
        /// It reaches at least to here.
        size: u64,
        /// When it was written last; `None` for a change of size alone.
        mtime: Option<Time>,
        /// Units of 512 bytes that its objects use, where the client knows.
        blocks: Option<u64>,
        /// The writer was not root: set-id bits go.
        kill_suid_sgid: bool,
    },
    /// Gives objects to a component that has none: [`Answer::Layout`].
    Place {
        /// Which file.
        ino: Ino,
        /// Any offset in the component.
        offset: u64,
    },
    /// The layout of a file that has no data yet: [`Answer::Layout`].
    SetLayout {
        /// Which file.
        ino: Ino,
        /// The layout.
        spread: Spread,
    },
    /// The layout that new files in a directory get; `None` for that of the filesystem.
    SetDefault {
        /// The directory.
        ino: Ino,
        /// The layout.
        spread: Option<Spread>,
    },
    /// Exchanges the data of two files (`lfs migrate`), if both are as the caller saw them.
    SwapLayouts {
        /// One file, and its layout's generation.
        one: (Ino, u32),
        /// The other.
        other: (Ino, u32),
    },
    /// Limits and grace; for root alone.
    SetQuota {
        /// Of users, groups or projects.
        kind: QuotaKind,
        /// What.
        set: SetQuota,
    },
}

/// What is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Make {
    /// A file.
    File {
        /// Its layout; `None` takes the directory's.
        spread: Option<Spread>,
        /// Opens it; a file that is there already is opened unless `exclusive`.
        open: bool,
        /// The name must be new.
        exclusive: bool,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// To where.
        target: Vec<u8>,
    },
    /// A pipe, a socket or a device.
    Node {
        /// Which.
        kind: FileKind,
        /// The device number of a device.
        rdev: u32,
    },
}

/// See rename(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rename {
    /// It is replaced.
    Replace,
    /// It must not be there.
    NoReplace,
    /// It gets the old name.
    Exchange,
}

/// See setxattr(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum XattrHow {
    /// Either.
    Set,
    /// It must not be there.
    Create,
    /// It must be there.
    Replace,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// What came of it.
    pub outcome: Result<Answer, Errno>,
    /// What the session may keep from now on.
    pub grants: Vec<Grant>,
    /// See the module: answers below a callback's number are stale.
    pub seq: u64,
    /// The directories whose names a change changed, as they are after it, as far as the session holds their attributes.
    pub dirs: Vec<Attr>,
    /// With the attributes of a file: how much more space its owner may use, in bytes; `None` without a limit. What a session
    /// holds back, or has not told of, is to be within; a quarter of it, as others may hold back as well.
    pub room: Option<u64>,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// The session is open.
    Welcome(Welcome),
    /// A name that is there.
    Entry(Attr),
    /// The attributes.
    Attr(Attr),
    /// An open file; the bulk has its first bytes where they were asked for.
    Opened {
        /// Its attributes.
        attr: Attr,
        /// Where its bytes are.
        layout: Layout,
        /// Others have it open too, and somebody writes: keep nothing (`O_DIRECT` is how the kernel calls that).
        shared: bool,
        /// How many bytes from the start are in the bulk; `None` when none were asked for, or they are at the OSTs.
        data: Option<u32>,
        /// It was made by this request.
        made: bool,
    },
    /// A link's target, an attribute's value, a list of names.
    Bytes(Vec<u8>),
    /// Names of a directory.
    Names {
        /// In the order of their cursors.
        names: Vec<Name>,
        /// There are no more.
        end: bool,
        /// The directory that it is in; the root, and one without a name, is said to be in itself.
        parent: Ino,
    },
    /// Where the bytes of a file are.
    Layout(Layout),
    /// A directory's default layout, and whether it is its own (not the filesystem's).
    Spread(Spread, bool),
    /// The bulk has the bytes.
    Data {
        /// CRC32C of the bulk.
        crc: u32,
    },
    /// Space of the MDT and of the OSTs.
    Space {
        /// Of the MDT; `inodes` counts files.
        mdt: Space,
        /// Of each OST that answers; `None` for one that does not.
        osts: Vec<(OstIndex, Option<Space>)>,
    },
    /// Paths from the root, without a leading slash.
    Paths(Vec<Vec<u8>>),
    /// To `Lock::Test`: the lock that is in the way, if any.
    Blocker(Option<RecordLock>),
    /// What is used and may be, and how long more than the soft limits.
    Quota(Account, Grace),
}

/// The terms of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The session went on: what it holds is held again. Otherwise it is new, or was evicted: nothing is held, and what was
    /// not written back is lost.
    pub resumed: bool,
    /// A session that is silent for so many seconds, or does not answer a callback for so long, is evicted.
    pub session_secs: u32,
    /// The rank of the MDT.
    pub mdt: u16,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// Where to go on behind it. Stays what it is for as long as the name does; never 0.
    pub cursor: u64,
    /// What it leads to.
    pub ino: Ino,
    /// What that is.
    pub kind: FileKind,
    /// The name.
    pub name: Vec<u8>,
    /// Its attributes, when they were asked for.
    pub attr: Option<Attr>,
}

/// The MDS wants something back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callback {
    /// Its number; higher than that of every answer before.
    pub seq: u64,
    /// On which inode.
    pub ino: Ino,
    /// What.
    pub take: Take,
}

/// What the MDS wants back. It is acknowledged when the client, its kernel included, does not use it any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Take {
    /// The lease on attributes.
    Meta,
    /// One name of a directory; the lease on the others stays.
    Name(Vec<u8>),
    /// The lease on all names of a directory.
    Names,
    /// The data lease, down to this: what was held back is written first ([`Act::WriteInline`], [`Act::Written`]), and what
    /// may not be kept is forgotten.
    Data(DataLease),
    /// The inode has lost its last name; does the session have it open? If not, the lease on attributes goes.
    Unlinked,
}

/// A callback that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acked {
    /// The callback's number.
    pub seq: u64,
    /// The inode.
    pub ino: Ino,
    /// The session has it open.
    pub open: bool,
}

/// A request for file and record locks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lock {
    /// Takes, changes or (with `kind: None`) drops a lock: [`Answer::Done`], `EAGAIN` when it is taken, `EDEADLK`.
    Set {
        /// Which file.
        ino: Ino,
        /// flock(2), not fcntl(2): the whole file, and a family of its own.
        flock: bool,
        /// The lock.
        lock: RecordLock,
        /// Wait until it is free. The wait ends with the connection.
        wait: bool,
    },
    /// What would be in the way: [`Answer::Blocker`].
    Test {
        /// Which file.
        ino: Ino,
        /// The lock.
        lock: RecordLock,
    },
    /// Drops every lock of an owner, which closed the file.
    Drop {
        /// Which file.
        ino: Ino,
        /// flock(2) or fcntl(2).
        flock: bool,
        /// Whose.
        owner: u64,
    },
}

/// A lock on a range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordLock {
    /// First byte.
    pub start: u64,
    /// Last byte; `u64::MAX` for the end of the file, wherever that is.
    pub last: u64,
    /// Shared, exclusive, or none to unlock.
    pub kind: LockKind,
    /// Who holds it, within the session: the kernel's number.
    pub owner: u64,
    /// The process, for those who ask.
    pub pid: u32,
}

/// What a lock keeps out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockKind {
    /// Nothing: unlocks.
    None,
    /// Exclusive locks.
    Shared,
    /// All locks.
    Exclusive,
}

/// A lock that a session holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLock {
    /// On which file.
    pub ino: Ino,
    /// flock(2) or fcntl(2).
    pub flock: bool,
    /// The lock.
    pub lock: RecordLock,
}
