//! One target: what it answers.

use std::path::Path;
use std::sync::Arc;

use kiln_net::Fault;
use kiln_net::blocking::{Replies, Span};

use super::buffers::{Buffer, Buffers};
use super::directory::DirectoryObjects;
use super::error::TargetError;
use super::fences::Fences;
use super::label::Label;
use super::objects::{OBJECT_BYTES_MAX, Objects};
use crate::core::{Errno, ObjectId};
use crate::wire::oss::{OBJECTS_MAX, Op, Reply, Request, Space};
use crate::wire::{DATA_BYTES_MAX, VERSION};

/// A target that is served.
#[derive(Debug)]
pub struct Ost {
    label: Label,
    objects: Box<dyn Objects>,
    fences: Fences,
    buffers: Arc<Buffers>,
}

/// An answer that is not sent yet.
#[derive(Debug)]
pub struct Answer {
    reply: Reply,
    data: Data,
}

/// The bulk of an answer.
#[derive(Debug)]
enum Data {
    None,
    /// In memory of the target's.
    Own(Buffer),
    /// In memory that the client has lent for it.
    Lent(Span),
}

impl Answer {
    /// The refusal of a request.
    pub fn refused(errno: Errno) -> Answer {
        Reply::Refused(errno).into()
    }

    /// What is answered.
    pub fn reply(&self) -> &Reply {
        &self.reply
    }

    /// The bulk of the answer.
    pub fn bulk(&self) -> &[u8] {
        match &self.data {
            Data::None => &[],
            Data::Own(buffer) => buffer.bytes(),
            Data::Lent(span) => span.as_ref(),
        }
    }

    /// Sends it.
    pub fn send(self, replies: &mut Replies) -> Result<(), Fault> {
        match self.data {
            Data::Lent(span) => replies.last_in(&self.reply, span),
            _ => replies.last(&self.reply, &[self.bulk()]),
        }
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Answer {
        Answer { reply, data: Data::None }
    }
}

impl Ost {
    /// Makes a directory a target; see [`DirectoryObjects::format`].
    pub fn format(dir: &Path, label: &Label) -> Result<(), TargetError> {
        DirectoryObjects::format(dir, label)
    }

    /// Opens the target in `dir`, which must be `label`; until it is dropped nobody else can.
    pub fn open(dir: &Path, label: &Label) -> Result<Ost, TargetError> {
        let objects = DirectoryObjects::open(dir, label)?;
        Ost::over(label.clone(), Box::new(objects), dir)
    }

    /// Serves `objects` as the target `label`; `dir` is where the sessions are remembered that are kept out.
    pub fn over(label: Label, objects: Box<dyn Objects>, dir: &Path) -> Result<Ost, TargetError> {
        Ok(Ost { label, objects, fences: Fences::open(dir)?, buffers: Arc::default() })
    }

    /// Which target it is.
    pub fn label(&self) -> &Label {
        &self.label
    }

    /// Does what a request says; blocks as long as the disk needs.
    pub fn answer(&self, request: &Request, bulk: &[u8]) -> Answer {
        self.answer_into(request, bulk, |_| None)
    }

    /// As [`Ost::answer`]; what is read is put where there is `room` for so many bytes, in memory that the client has lent.
    pub(super) fn answer_into(
        &self,
        request: &Request,
        bulk: &[u8],
        room: impl FnOnce(usize) -> Option<Span>,
    ) -> Answer {
        self.serve(request, bulk, room).unwrap_or_else(|errno| {
            if errno == Errno::EIO {
                self.tell_of_failure(request, bulk);
            }
            Answer::refused(errno)
        })
    }

    /// Space of the target.
    pub fn space(&self) -> Result<Space, Errno> {
        self.objects.space()
    }

    fn tell_of_failure(&self, request: &Request, bulk: &[u8]) {
        let damaged = matches!(request.op, Op::Write { crc, .. } if !is_whole(crc, bulk));
        let what = if damaged { "bytes arrived damaged, and were refused" } else { "the storage failed" };
        tracing::error!(target = %self.label, op = ?request.op, session = ?request.session, "{what}");
    }

    fn serve(
        &self,
        request: &Request,
        bulk: &[u8],
        room: impl FnOnce(usize) -> Option<Span>,
    ) -> Result<Answer, Errno> {
        let Request { fs, id, ost, session, op } = request;
        if *fs != self.label.fs || id.0 != self.label.id || *ost != self.label.index {
            return Err(Errno::ENODEV);
        }
        let pass = self.fences.enter(*session)?;
        match op {
            Op::Hello { version: VERSION } => {}
            Op::Hello { .. } => return Err(Errno::EPROTO),
            Op::Read { object, offset, len } => return self.read(*object, *offset, *len, room),
            Op::Write { object, offset, crc, sync } => {
                self.write(*object, *offset, *crc, bulk)?;
                if *sync {
                    self.objects.sync(&[*object])?;
                }
            }
            Op::Truncate { object, len } => self.objects.truncate(*object, *len)?,
            Op::Punch { object, offset, len } => self.punch(*object, *offset, *len)?,
            Op::Allocate { object, offset, len } => self.allocate(*object, *offset, *len)?,
            Op::Seek { object, offset, hole } => return self.seek(*object, *offset, *hole),
            Op::Sync { objects } => self.objects.sync(bounded(objects)?)?,
            Op::Stat { objects } => return self.stat(bounded(objects)?),
            Op::Destroy { objects } => {
                bounded(objects)?.iter().try_for_each(|object| self.objects.destroy(*object))?;
            }
            Op::Statfs => return self.space().map(|space| Reply::Space(space).into()),
            Op::Fence { session: evicted } => {
                // One's own request would be waited for.
                drop(pass);
                self.fences.fence(*evicted)?;
                tracing::info!(target = %self.label, session = ?evicted, "session kept out");
            }
        }
        Ok(Reply::Done.into())
    }

    fn read(
        &self,
        object: ObjectId,
        offset: u64,
        len: u32,
        room: impl FnOnce(usize) -> Option<Span>,
    ) -> Result<Answer, Errno> {
        if len > DATA_BYTES_MAX || end(offset, u64::from(len)).is_none() {
            return Err(Errno::EINVAL);
        }
        if let Some(mut span) = room(len as usize) {
            let read = self.objects.read(object, offset, span.as_mut())?;
            span.cut(read);
            return Ok(Answer { reply: Reply::Data { crc: None }, data: Data::Lent(span) });
        }
        let mut data = self.buffers.take(len as usize);
        let read = self.objects.read(object, offset, data.bytes_mut())?;
        data.cut(read);
        let reply = Reply::Data { crc: Some(crc32c::crc32c(data.bytes())) };
        Ok(Answer { reply, data: Data::Own(data) })
    }

    fn write(&self, object: ObjectId, offset: u64, crc: Option<u32>, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.len() > DATA_BYTES_MAX as usize {
            return Err(Errno::EINVAL);
        }
        end(offset, bytes.len() as u64).ok_or(Errno::EFBIG)?;
        if !is_whole(crc, bytes) {
            return Err(Errno::EIO);
        }
        if bytes.is_empty() { Ok(()) } else { self.objects.write(object, offset, bytes) }
    }

    fn punch(&self, object: ObjectId, offset: u64, len: u64) -> Result<(), Errno> {
        // To the end, wherever that is, is a way to say it.
        let len = len.min(OBJECT_BYTES_MAX.saturating_sub(offset));
        if len == 0 { Ok(()) } else { self.objects.punch(object, offset, len) }
    }

    fn allocate(&self, object: ObjectId, offset: u64, len: u64) -> Result<(), Errno> {
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        end(offset, len).ok_or(Errno::EFBIG)?;
        self.objects.allocate(object, offset, len)
    }

    fn seek(&self, object: ObjectId, offset: u64, hole: bool) -> Result<Answer, Errno> {
        end(offset, 0).ok_or(Errno::ENXIO)?;
        self.objects.seek(object, offset, hole).map(|found| Reply::Offset(found).into())
    }

    fn stat(&self, objects: &[ObjectId]) -> Result<Answer, Errno> {
        let stats = objects.iter().map(|object| self.objects.stat(*object));
        stats.collect::<Result<_, _>>().map(|stats| Reply::Stats(stats).into())
    }
}

/// Whether bytes are what was sent.
fn is_whole(crc: Option<u32>, bytes: &[u8]) -> bool {
    crc.is_none_or(|crc| crc == crc32c::crc32c(bytes))
}

/// The end of a range that an object can have.
fn end(offset: u64, len: u64) -> Option<u64> {
    offset.checked_add(len).filter(|end| *end <= OBJECT_BYTES_MAX)
}

fn bounded(objects: &[ObjectId]) -> Result<&[ObjectId], Errno> {
    if objects.len() > OBJECTS_MAX { Err(Errno::EINVAL) } else { Ok(objects) }
}
