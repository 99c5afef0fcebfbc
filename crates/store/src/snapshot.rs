//! Reading: a view of the tables that stands still.

use std::marker::PhantomData;
use std::ops::Bound;
use std::sync::Arc;

use redb::{OwnedRange, ReadOnlyTable};
use serde::de::DeserializeOwned;

use crate::Revision;
use crate::command::decode_all;
use crate::error::ReadError;
use crate::key::{after_prefix, name_bytes, row_key};

/// One machine's tables as they were at one revision. Cloning is cheap.
///
/// It holds on to the pages it can see, so keep it for the length of a request, not of a connection.
#[derive(Clone)]
pub struct Snapshot {
    machine: &'static str,
    view: Result<Arc<View>, ReadError>,
}

/// The whole state at one revision.
pub(crate) struct View {
    pub(crate) rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(crate) revision: Revision,
}

impl Snapshot {
    pub(crate) fn new(machine: &'static str, view: Result<Arc<View>, ReadError>) -> Snapshot {
        Snapshot { machine, view }
    }

    /// The state's revision; every command up to it, and none after it, is in this view.
    pub fn revision(&self) -> Result<Revision, ReadError> {
        Ok(self.view()?.revision)
    }

    /// The row `key` of `table`.
    pub fn get<T: DeserializeOwned>(&self, table: &str, key: &[u8]) -> Result<Option<T>, ReadError> {
        let full = row_key(self.machine, table, key);
        let found = self.view()?.rows.get(full.as_slice()).map_err(ReadError::state)?;
        found.map(|row| decode_row(table, key, row.value())).transpose()
    }

    /// Whether `table` has a row `key`.
    pub fn has(&self, table: &str, key: &[u8]) -> Result<bool, ReadError> {
        let full = row_key(self.machine, table, key);
        Ok(self.view()?.rows.get(full.as_slice()).map_err(ReadError::state)?.is_some())
    }

    /// All rows of `table` whose key starts with `prefix`, in the order of their keys; the empty prefix is all.
    ///
    /// They are gathered in memory; [`Snapshot::rows`] goes one by one.
    pub fn scan<T: DeserializeOwned>(
        &self,
        table: &str,
        prefix: &[u8],
    ) -> Result<Vec<(Vec<u8>, T)>, ReadError> {
        self.rows(table, prefix)?.collect()
    }

    /// The rows of [`Snapshot::scan`], read as they are asked for.
    pub fn rows<T: DeserializeOwned>(&self, table: &str, prefix: &[u8]) -> Result<Rows<T>, ReadError> {
        let start = row_key(self.machine, table, prefix);
        let end = after_prefix(&start);
        self.range(table, (Bound::Included(start), end))
    }

    /// The rows of `table` from the key `from` on, read as they are asked for.
    pub fn rows_from<T: DeserializeOwned>(&self, table: &str, from: &[u8]) -> Result<Rows<T>, ReadError> {
        let start = row_key(self.machine, table, from);
        let end = after_prefix(&row_key(self.machine, table, &[]));
        self.range(table, (Bound::Included(start), end))
    }

    fn range<T>(&self, table: &str, range: (Bound<Vec<u8>>, Bound<Vec<u8>>)) -> Result<Rows<T>, ReadError> {
        let range = (range.0.as_ref().map(Vec::as_slice), range.1.as_ref().map(Vec::as_slice));
        let rows = self.view()?.rows.range_owned::<&[u8]>(range).map_err(ReadError::state)?;
        let names = name_bytes(self.machine, table);
        Ok(Rows { range: rows, names, table: table.to_owned(), decoded: PhantomData })
    }

    fn view(&self) -> Result<&View, ReadError> {
        match &self.view {
            Ok(view) => Ok(view),
            Err(error) => Err(error.clone()),
        }
    }
}

/// Rows of one table in the order of their keys.
pub struct Rows<T> {
    range: OwnedRange<&'static [u8], &'static [u8]>,
    /// How many bytes of the full keys to leave away.
    names: usize,
    table: String,
    decoded: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Iterator for Rows<T> {
    type Item = Result<(Vec<u8>, T), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = match self.range.next()? {
            Ok(row) => row,
            Err(error) => return Some(Err(ReadError::state(error))),
        };
        let key = key.value()[self.names..].to_vec();
        Some(decode_row(&self.table, &key, value.value()).map(|value| (key, value)))
    }
}

/// Decodes one row; the error names it.
pub(crate) fn decode_row<T: DeserializeOwned>(table: &str, key: &[u8], bytes: &[u8]) -> Result<T, ReadError> {
    decode_all(bytes).map_err(|why| ReadError::Decode {
        table: table.to_owned(),
        key: key.escape_ascii().to_string(),
        wanted: std::any::type_name::<T>(),
        why,
    })
}
