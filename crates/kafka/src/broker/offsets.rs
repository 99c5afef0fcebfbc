//! Committed offsets.

use super::Broker;
use crate::machine::{
    Command, Commit, METADATA_BYTES_MAX, OFFSETS, OffsetRow, Rejection, group_prefix, is_group_name,
    offset_key, parse_offset_key,
};
use kiln_store::SubmitError;
use kiln_types::Offset;

/// Why offsets were not stored or read.
#[derive(Debug, thiserror::Error)]
pub enum OffsetError {
    /// The group's name is not allowed.
    #[error("group name {0:?} is not allowed: use 1 to 255 bytes without NUL")]
    Group(String),
    /// The text beside an offset is too long.
    #[error("offset metadata has {0} bytes, the limit is {METADATA_BYTES_MAX}")]
    Metadata(usize),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] SubmitError<Rejection>),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] kiln_store::ReadError),
}

impl Broker {
    /// Stores how far a group has read, all partitions or none; durable when this returns.
    ///
    /// For consumers inside Kiln, which are not members: whether the group has members is not asked.
    pub async fn commit(&self, group: &str, offsets: Vec<Commit>) -> Result<(), OffsetError> {
        if !is_group_name(group) {
            return Err(OffsetError::Group(group.to_owned()));
        }
        if let Some(long) = offsets.iter().find(|commit| commit.metadata.len() > METADATA_BYTES_MAX) {
            return Err(OffsetError::Metadata(long.metadata.len()));
        }
        if !offsets.is_empty() {
            self.inner.store.submit(Command::CommitOffsets { group: group.to_owned(), offsets }).await?;
        }
        Ok(())
    }

    /// How far a group has read a partition, if it ever committed.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Result<Option<Offset>, OffsetError> {
        Ok(self.committed_row(group, topic, partition)?.map(|row| Offset(row.offset)))
    }

    pub(crate) fn committed_row(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Result<Option<OffsetRow>, kiln_store::ReadError> {
        self.inner.store.read().get(OFFSETS, &offset_key(group, topic, partition))
    }

    /// All offsets of a group: topic, partition, row.
    pub(crate) fn committed_all(
        &self,
        group: &str,
    ) -> Result<Vec<(String, i32, OffsetRow)>, kiln_store::ReadError> {
        let rows = self.inner.store.read().scan::<OffsetRow>(OFFSETS, &group_prefix(group))?;
        let named = |(key, row): (Vec<u8>, OffsetRow)| {
            let (_, topic, partition) = parse_offset_key(&key)?;
            Some((topic.to_owned(), partition, row))
        };
        Ok(rows.into_iter().filter_map(named).collect())
    }
}
