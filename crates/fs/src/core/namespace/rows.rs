//! Rows, and changes that lie over them.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::{Bound, ControlFlow};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::core::Errno;

/// Ordered rows that can be read.
///
/// An error means that rows could not be read; whoever implements this remembers it, for what is answered to a caller
/// because of it is not true.
pub trait Rows {
    /// The value under a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Errno>;

    /// Shows the rows from `from` up to and without `to`, in the order of their keys, until `each` breaks off.
    fn scan(&self, from: &[u8], to: &[u8], each: &mut Each<'_>) -> Result<(), Errno>;
}

/// Is shown a key and its value.
pub type Each<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// What becomes of rows: a new value, or `None` where the row goes.
pub type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Rows as they are with changes over them.
#[derive(Clone, Copy)]
pub struct Over<'a> {
    /// What lies over them.
    pub changes: &'a Changes,
    /// The rows below.
    pub base: &'a dyn Rows,
}

impl Rows for Over<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        self.changes.get(key).map_or_else(|| self.base.get(key), |change| Ok(change.clone()))
    }

    fn scan(&self, from: &[u8], to: &[u8], each: &mut Each<'_>) -> Result<(), Errno> {
        if from >= to {
            return Ok(());
        }
        let mut over = self.changes.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))).peekable();
        let mut flow = ControlFlow::Continue(());
        self.base.scan(from, to, &mut |key, value| {
            flow = show_over(&mut over, key, value, each);
            flow
        })?;
        if flow.is_continue() {
            // Nobody is left who wants to know that it was broken off here.
            let _ = over.try_for_each(|(key, change)| show(key, change.as_deref(), each));
        }
        Ok(())
    }
}

/// Shows the changes up to `key`, and then the row unless a change replaces it.
fn show_over<'c>(
    over: &mut Peekable<impl Iterator<Item = (&'c Vec<u8>, &'c Option<Vec<u8>>)>>,
    key: &[u8],
    value: &[u8],
    each: &mut Each<'_>,
) -> ControlFlow<()> {
    while let Some((changed, change)) = over.next_if(|(changed, _)| changed.as_slice() <= key) {
        show(changed, change.as_deref(), each)?;
        if changed == key {
            return ControlFlow::Continue(());
        }
    }
    each(key, value)
}

fn show(key: &[u8], value: Option<&[u8]>, each: &mut Each<'_>) -> ControlFlow<()> {
    value.map_or(ControlFlow::Continue(()), |value| each(key, value))
}

/// A kind of row whose value is a version and the type in postcard.
pub(super) trait Row: Serialize + DeserializeOwned {
    /// The first byte of the value. A type that changes gets another one, and reads the older.
    const VERSION: u8;

    /// The value of the row.
    fn encode(&self) -> Vec<u8> {
        let start = vec![Self::VERSION];
        postcard::to_extend(self, start)
            .expect("the types of rows have lengths known beforehand, which is all it asks")
    }

    /// The type again. `EIO` where the row is damaged, or of a newer Kiln.
    fn decode(value: &[u8]) -> Result<Self, Errno> {
        let (version, body) = value.split_first().ok_or(Errno::EIO)?;
        if *version != Self::VERSION {
            return Err(Errno::EIO);
        }
        match postcard::take_from_bytes(body) {
            Ok((row, [])) => Ok(row),
            _ => Err(Errno::EIO),
        }
    }
}

/// The row under a key, decoded.
pub(super) fn load<T: Row>(rows: &dyn Rows, key: &[u8]) -> Result<Option<T>, Errno> {
    rows.get(key)?.map(|value| T::decode(&value)).transpose()
}
