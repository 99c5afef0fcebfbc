//! The changelog of a filesystem, on its way from the MDT to its topic `kiln.fs.NAME.changelog`.
//!
//! - [`Sink`]: what an MDS writes to: the MGS of this process, or the leader's by its socket.
//! - [`line`]: a record as it stands in the topic.

pub(crate) mod line;

use std::time::Duration;

use kiln_fs::core::changelog::Entry;
use kiln_fs::mds::Changelog;
use kiln_fs::wire;
use kiln_fs::wire::mgs::{Reply, Request};
use kiln_net::blocking::Connection;

use super::duty::Source;

/// A leader that takes longer has not written the records.
const WRITTEN_WITHIN: Duration = Duration::from_secs(15);

/// The topic of a filesystem.
pub(crate) fn topic(fs: &str) -> String {
    format!("kiln.fs.{fs}.changelog")
}

/// Where this node writes what changed in its filesystems, and what happened to its pools.
pub(super) struct Sink(pub(super) Source);

impl Changelog for Sink {
    fn write(&self, fs: &str, entries: Vec<Entry>) -> Result<(), String> {
        self.tell(Request::Changes { fs: fs.to_owned(), entries })
    }
}

impl Sink {
    /// Hands something to the leader, which has it durably when this returns.
    pub(super) fn tell(&self, request: Request) -> Result<(), String> {
        let reply = match &self.0 {
            Source::Here(mgs) => mgs.answer(request),
            Source::At(socket) => {
                let asked = || -> Result<Reply, Box<dyn std::error::Error>> {
                    let mut leader = Connection::connect_unix(socket)?;
                    leader.set_timeout(Some(WRITTEN_WITHIN))?;
                    Ok(leader.call(&wire::Request::Mgs(request), &[])?.0)
                };
                asked().map_err(|error| format!("the leader does not answer: {error}"))?
            }
        };
        match reply {
            Reply::Done => Ok(()),
            Reply::Failed(why) => Err(why),
            other => Err(format!("the leader answered another question: {other:?}")),
        }
    }
}
