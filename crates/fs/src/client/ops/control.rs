//! The virtual attributes by which `lfs` asks and tells ([`crate::client::control`]).

use super::xattrs::sized;
use super::{Caller, Client, Outcome};
use crate::client::control::{
    self, Attribute, DefaultSpread, FsSpace, OstSpace, Project, Quota, SetProject, Swap,
};
use crate::client::fuse::Reply;
use crate::client::meta::unexpected;
use crate::core::quota::{QuotaKind, SetQuota};
use crate::core::{Attr, Errno, Fid, FileKind, Ino, Layout, SetAttr, Spread};
use crate::wire::mds::{Act, Answer, Ask};

impl Client {
    /// The value of a virtual attribute.
    pub(super) fn get_control(&self, caller: &Caller<'_>, ino: Ino, name: &[u8], size: u32) -> Outcome<'_> {
        let value = match Attribute::of(name).ok_or(Errno::ENODATA)? {
            Attribute::Fid => Fid(ino).to_string().into_bytes(),
            Attribute::Layout => self.layout_value(caller, ino)?,
            Attribute::Spread => match self.answer(caller, Ask::Default { ino })? {
                Answer::Spread(spread, own) => control::encode(&DefaultSpread { spread, own }),
                other => return Err(unexpected(&other)),
            },
            Attribute::Space => self.space_value(caller)?,
            Attribute::Paths(of) => self.paths_value(caller, of)?,
            Attribute::Quota(kind, id) => self.quota_value(caller, kind, id)?,
            Attribute::Project => {
                let attr = self.attr(caller, ino)?;
                let inherit = attr.flags & Attr::PROJECT_INHERIT != 0;
                control::encode(&Project { id: attr.project, inherit })
            }
            Attribute::Quotas | Attribute::Swap => return Err(Errno::ENODATA),
        };
        sized(Answer::Bytes(value), size)
    }

    /// Sets a virtual attribute: the kernel has seen to it that the caller may write to the inode.
    pub(super) fn set_control(
        &self,
        caller: &Caller<'_>,
        ino: Ino,
        name: &[u8],
        value: &[u8],
    ) -> Outcome<'_> {
        match Attribute::of(name).ok_or(Errno::EOPNOTSUPP)? {
            Attribute::Spread => {
                let spread: Option<Spread> = control::decode(value).ok_or(Errno::EINVAL)?;
                self.set_spread(caller, ino, spread)?;
            }
            Attribute::Quotas => {
                let (kind, set): (QuotaKind, SetQuota) = control::decode(value).ok_or(Errno::EINVAL)?;
                self.change_xattr(caller, ino, Act::SetQuota { kind, set })?;
            }
            Attribute::Project => {
                let SetProject { id, inherit } = control::decode(value).ok_or(Errno::EINVAL)?;
                let set = SetAttr { project: id, project_inherit: inherit, ..SetAttr::default() };
                self.change_xattr(caller, ino, Act::Setattr { ino, set })?;
            }
            Attribute::Swap => self.swap(caller, ino, control::decode(value).ok_or(Errno::EINVAL)?)?,
            _ => return Err(Errno::EPERM),
        }
        Ok(Reply::Done.into())
    }

    fn answer(&self, caller: &Caller<'_>, ask: Ask) -> Result<Answer, Errno> {
        let answered = self.ask(caller, ask)?;
        drop(self.meta.absorb(answered.grants, answered.stamp));
        answered.outcome
    }

    /// The layout as it is when what was written is at its place.
    fn layout_value(&self, caller: &Caller<'_>, ino: Ino) -> Result<Vec<u8>, Errno> {
        self.write_back(ino)?;
        self.layout(caller, ino).map(|layout| control::encode(&layout))
    }

    fn layout(&self, caller: &Caller<'_>, ino: Ino) -> Result<Layout, Errno> {
        match self.answer(caller, Ask::Layout { ino })? {
            Answer::Layout(layout) => Ok(layout),
            other => Err(unexpected(&other)),
        }
    }

    /// A file's layout was changed: what is known of the file learns that before anybody opens it again.
    fn learn_layout(&self, caller: &Caller<'_>, ino: Ino) -> Result<(), Errno> {
        let file = self.meta.inodes.find(ino).and_then(|inode| inode.state().file.clone());
        if let Some(file) = file {
            file.set_layout(self.layout(caller, ino)?);
        }
        Ok(())
    }

    fn write_back(&self, ino: Ino) -> Result<(), Errno> {
        let file = self.meta.inodes.find(ino).and_then(|inode| inode.state().file.clone());
        file.map_or(Ok(()), |file| file.flush())
    }

    fn space_value(&self, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
        let Answer::Space { mdt, osts } = self.answer(caller, Ask::Statfs)? else {
            return Err(Errno::EPROTO);
        };
        let config = self.config();
        let ost = |(index, space)| {
            let draining = config.osts.iter().any(|ost| ost.index == index && ost.draining);
            OstSpace { index, draining, space }
        };
        let osts = osts.into_iter().map(ost).collect();
        Ok(control::encode(&FsSpace { fs: config.name.clone(), mdts: vec![Some(mdt)], osts }))
    }

    /// Paths go past the permissions of the directories on the way: for root, and for whoever has mounted.
    fn paths_value(&self, caller: &Caller<'_>, ino: Ino) -> Result<Vec<u8>, Errno> {
        if caller.uid != 0 && caller.uid != nix::unistd::geteuid().as_raw() {
            return Err(Errno::EPERM);
        }
        match self.answer(caller, Ask::Paths { ino, count_max: control::PATHS_MAX })? {
            Answer::Paths(paths) => Ok(control::encode_paths(&paths)),
            other => Err(unexpected(&other)),
        }
    }

    /// What somebody uses, with what this mount has not told the MDS yet.
    fn quota_value(&self, caller: &Caller<'_>, kind: QuotaKind, id: u32) -> Result<Vec<u8>, Errno> {
        if !may_see(caller, kind, id) {
            return Err(Errno::EPERM);
        }
        self.data.account(|owner| owner.id(kind) == id);
        match self.answer(caller, Ask::Quota { kind, id })? {
            Answer::Quota(account, grace) => {
                Ok(control::encode(&Quota { fs: self.config().name.clone(), account, grace }))
            }
            other => Err(unexpected(&other)),
        }
    }

    fn attr(&self, caller: &Caller<'_>, ino: Ino) -> Result<Attr, Errno> {
        match self.answer(caller, Ask::Getattr { ino })? {
            Answer::Attr(attr) => Ok(attr),
            other => Err(unexpected(&other)),
        }
    }

    fn set_spread(&self, caller: &Caller<'_>, ino: Ino, spread: Option<Spread>) -> Result<(), Errno> {
        let kind = self.attr(caller, ino)?.kind;
        let act = match (kind, spread) {
            (FileKind::Directory, spread) => Act::SetDefault { ino, spread },
            (FileKind::Regular, Some(spread)) => Act::SetLayout { ino, spread },
            (FileKind::Regular, None) => return Err(Errno::EINVAL),
            _ => return Err(Errno::EOPNOTSUPP),
        };
        self.change_xattr(caller, ino, act)?;
        if kind == FileKind::Regular { self.learn_layout(caller, ino) } else { Ok(()) }
    }

    /// Exchanges the data of two files that nobody has open.
    fn swap(&self, caller: &Caller<'_>, ino: Ino, swap: Swap) -> Result<(), Errno> {
        let Swap { generation, other, other_generation } = swap;
        for ino in [ino, other] {
            self.write_back(ino)?;
            // Who has it open knows the old places of its data.
            let Some(inode) = self.meta.inodes.find(ino) else { continue };
            if inode.state().opens > 0 {
                return Err(Errno::EBUSY);
            }
            self.house.close_now(self, &inode);
        }
        let act = Act::SwapLayouts { one: (ino, generation), other: (other, other_generation) };
        self.change_xattr(caller, ino, act)?;
        if let Some(inode) = self.meta.inodes.find(other) {
            inode.state().forget_attr();
        }
        self.learn_layout(caller, ino)?;
        self.learn_layout(caller, other)
    }
}

/// Each sees what he uses himself, his groups, and projects; root sees everybody's.
fn may_see(caller: &Caller<'_>, kind: QuotaKind, id: u32) -> bool {
    match kind {
        _ if caller.uid == 0 => true,
        QuotaKind::User => caller.uid == id,
        QuotaKind::Group => caller.gid == id || caller.waiter.is_in_group(id),
        QuotaKind::Project => true,
    }
}
