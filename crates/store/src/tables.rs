//! The tables as a command sees them: what is there, and its own changes over it.

use std::collections::BTreeMap;
use std::ops::Bound;

use redb::ReadableTable;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ReadError;
use crate::key::{after_prefix, name_bytes, row_key};
use crate::snapshot::decode_row;

pub(crate) type RowTable<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// The changes of one command: a value to put, or `None` to delete.
pub(crate) type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The tables of one machine, while a command is applied.
///
/// Changes are kept aside and reach the tables only if the command succeeds; the command itself sees them at once.
///
/// No method fails: an unreadable disk, or a row that does not decode, is not the machine's to handle. It makes
/// the method answer as if the row were not there, and stops the store before anything of the command is kept.
pub struct Tables<'t> {
    machine: &'t str,
    rows: &'t RowTable<'t>,
    changes: Changes,
    fault: Option<ReadError>,
}

impl<'t> Tables<'t> {
    pub(crate) fn new(machine: &'t str, rows: &'t RowTable<'t>) -> Tables<'t> {
        Tables { machine, rows, changes: Changes::new(), fault: None }
    }

    /// The row `key` of `table`.
    pub fn get<T: DeserializeOwned>(&mut self, table: &str, key: &[u8]) -> Option<T> {
        let full = row_key(self.machine, table, key);
        let found = self.get_encoded(&full).and_then(|found| match found {
            Some(bytes) => decode_row(table, key, &bytes).map(Some),
            None => Ok(None),
        });
        self.or_fault(found).flatten()
    }

    /// Whether `table` has a row `key`.
    pub fn has(&mut self, table: &str, key: &[u8]) -> bool {
        let found = self.get_encoded(&row_key(self.machine, table, key));
        self.or_fault(found).flatten().is_some()
    }

    /// Puts `value` at `key`, over what is there.
    pub fn put<T: Serialize + ?Sized>(&mut self, table: &str, key: &[u8], value: &T) {
        match postcard::to_stdvec(value) {
            Ok(bytes) => {
                self.changes.insert(row_key(self.machine, table, key), Some(bytes));
            }
            Err(error) => {
                self.fault = Some(ReadError::state(format!("a row of {table} does not encode: {error}")));
            }
        }
    }

    /// Deletes the row `key`; says whether there was one.
    pub fn delete(&mut self, table: &str, key: &[u8]) -> bool {
        let was = self.has(table, key);
        if was {
            self.changes.insert(row_key(self.machine, table, key), None);
        }
        was
    }

    /// All rows of `table` whose key starts with `prefix`, in the order of their keys.
    pub fn scan<T: DeserializeOwned>(&mut self, table: &str, prefix: &[u8]) -> Vec<(Vec<u8>, T)> {
        let names = name_bytes(self.machine, table);
        let rows = self.scan_encoded(&row_key(self.machine, table, prefix)).and_then(|rows| {
            let decode = |(key, bytes): (Vec<u8>, Vec<u8>)| {
                let key = key[names..].to_vec();
                let value = decode_row(table, &key, &bytes)?;
                Ok((key, value))
            };
            rows.into_iter().map(decode).collect()
        });
        self.or_fault(rows).unwrap_or_default()
    }

    /// Deletes all rows of `table` whose key starts with `prefix`; says how many.
    pub fn delete_prefix(&mut self, table: &str, prefix: &[u8]) -> usize {
        let rows = self.scan_encoded(&row_key(self.machine, table, prefix));
        let rows = self.or_fault(rows).unwrap_or_default();
        let count = rows.len();
        self.changes.extend(rows.into_keys().map(|key| (key, None)));
        count
    }

    /// The changes of a command that succeeded.
    pub(crate) fn into_changes(self) -> Result<Changes, ReadError> {
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(self.changes),
        }
    }

    fn get_encoded(&self, full: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        if let Some(change) = self.changes.get(full) {
            return Ok(change.clone());
        }
        let found = self.rows.get(full).map_err(ReadError::state)?;
        Ok(found.map(|row| row.value().to_vec()))
    }

    fn scan_encoded(&self, prefix: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ReadError> {
        let end = after_prefix(prefix);
        let range = (Bound::Included(prefix), end.as_ref().map(Vec::as_slice));
        let mut found = BTreeMap::new();
        for row in self.rows.range::<&[u8]>(range).map_err(ReadError::state)? {
            let (key, value) = row.map_err(ReadError::state)?;
            found.insert(key.value().to_vec(), value.value().to_vec());
        }
        for (key, change) in self.changes.range::<[u8], _>(range) {
            match change {
                Some(value) => found.insert(key.clone(), value.clone()),
                None => found.remove(key),
            };
        }
        Ok(found)
    }

    fn or_fault<T>(&mut self, result: Result<T, ReadError>) -> Option<T> {
        result.map_err(|fault| self.fault = Some(fault)).ok()
    }
}
