//! Copies objects from one OST to another.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use bytes::Bytes;
use kiln_net::blocking::Connection;

use crate::core::{Errno, ObjectId, OstIndex};
use crate::mds::MDS_SESSION;
use crate::mds::osts::Osts;
use crate::wire;
use crate::wire::mgs::{Address, FsId};
use crate::wire::oss::{Op, Reply, Request};

/// Bytes that are read and written at once.
const CHUNK_BYTES: u32 = 1 << 20;
/// An OST that does not answer for so long is taken to be away.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A connection is made within this time, or not.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// Why an object was not copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyError {
    /// An OST does not answer.
    Away,
    /// An OST refused.
    Refused(Errno),
    /// It is not wanted any more.
    Over,
}

/// Connections to OSTs.
pub(super) struct Copier {
    fs: String,
    id: FsId,
    connections: HashMap<OstIndex, Connection>,
}

impl Copier {
    pub(super) fn new(fs: String, id: FsId) -> Copier {
        Copier { fs, id, connections: HashMap::new() }
    }

    /// Copies the first `len` bytes of an object to one that is not there yet, durably; while `goes_on`. Zeros become
    /// holes. Returns how many bytes were written.
    pub(super) fn copy(
        &mut self,
        osts: &Osts,
        from: (OstIndex, ObjectId),
        (to, new): (OstIndex, ObjectId),
        len: u64,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<u64, CopyError> {
        let mut written = 0;
        // Holes of sparse files may be long.
        let mut at = self.next_data(osts, from, 0)?;
        while let Some(offset) = at.filter(|offset| *offset < len) {
            if !goes_on() {
                return Err(CopyError::Over);
            }
            let chunk = (len - offset).min(CHUNK_BYTES.into()) as u32;
            let bytes = self.read(osts, from, offset, chunk)?;
            if bytes.iter().any(|byte| *byte != 0) {
                let op = Op::Write { object: new, offset, crc: Some(crc32c::crc32c(&bytes)), sync: false };
                self.call(osts, to, op, &bytes)?;
                written += bytes.len() as u64;
            }
            at = self.next_data(osts, from, offset + u64::from(chunk))?;
        }
        self.call(osts, to, Op::Sync { objects: vec![new] }, &[]).map(|_| written)
    }

    fn next_data(
        &mut self,
        osts: &Osts,
        (ost, object): (OstIndex, ObjectId),
        offset: u64,
    ) -> Result<Option<u64>, CopyError> {
        match self.call(osts, ost, Op::Seek { object, offset, hole: false }, &[]) {
            Ok((Reply::Offset(found), _)) => Ok(Some(found)),
            Ok(_) => Err(CopyError::Refused(Errno::EPROTO)),
            Err(CopyError::Refused(Errno::ENXIO)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(
        &mut self,
        osts: &Osts,
        (ost, object): (OstIndex, ObjectId),
        offset: u64,
        len: u32,
    ) -> Result<Bytes, CopyError> {
        match self.call(osts, ost, Op::Read { object, offset, len }, &[])? {
            (Reply::Data { crc }, bytes) if crc == Some(crc32c::crc32c(&bytes)) => Ok(bytes),
            _ => Err(CopyError::Refused(Errno::EIO)),
        }
    }

    fn call(&mut self, osts: &Osts, ost: OstIndex, op: Op, bulk: &[u8]) -> Result<(Reply, Bytes), CopyError> {
        let (fs, id) = (self.fs.clone(), self.id);
        let request = wire::Request::Oss(Request { fs, id, ost, session: MDS_SESSION, op });
        let called = self
            .connection(osts, ost)
            .and_then(|connection| connection.call(&request, &[bulk]).map_err(std::io::Error::other));
        match called {
            Ok((Reply::Refused(errno), _)) if errno != Errno::ENODEV => Err(CopyError::Refused(errno)),
            Ok((Reply::Refused(_), _)) => self.lost(ost, &"it is not served there"),
            Ok(answer) => Ok(answer),
            Err(error) => self.lost(ost, &error),
        }
    }

    fn lost<T>(&mut self, ost: OstIndex, why: &dyn std::fmt::Display) -> Result<T, CopyError> {
        tracing::debug!(ost = ost.0, %why, "an OST is away");
        self.connections.remove(&ost);
        Err(CopyError::Away)
    }

    fn connection(&mut self, osts: &Osts, ost: OstIndex) -> std::io::Result<&mut Connection> {
        match self.connections.entry(ost) {
            Entry::Occupied(connected) => Ok(connected.into_mut()),
            Entry::Vacant(none) => {
                let address = osts.address(ost).ok_or(std::io::ErrorKind::NotFound)?;
                Ok(none.insert(connect(&address)?))
            }
        }
    }
}

fn connect(address: &Address) -> std::io::Result<Connection> {
    let mut connection = match address {
        Address::Unix(path) => Connection::connect_unix(path)?,
        Address::Tcp(address) => Connection::connect_tcp(address, CONNECT_WITHIN)?,
    };
    connection.set_timeout(Some(ANSWER_WITHIN))?;
    Ok(connection)
}
