//! Where a row lies: `machine NUL table NUL key`, all machines in one ordered table.
//!
//! A name holds no NUL, so no row of one table can fall among those of another.

use std::ops::Bound;

/// Whether `name` can name a machine or a table.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('\0')
}

/// The full key of a row, or the prefix of all rows whose key starts with `key`.
pub(crate) fn row_key(machine: &str, table: &str, key: &[u8]) -> Vec<u8> {
    assert!(is_name(table), "{table:?} is no table name");
    let mut full = Vec::with_capacity(machine.len() + table.len() + key.len() + 2);
    full.extend_from_slice(machine.as_bytes());
    full.push(0);
    full.extend_from_slice(table.as_bytes());
    full.push(0);
    full.extend_from_slice(key);
    full
}

/// How many bytes of a full key come before the caller's own.
pub(crate) fn name_bytes(machine: &str, table: &str) -> usize {
    machine.len() + table.len() + 2
}

/// The smallest byte string above all that start with `prefix`; unbounded when there is none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Bound<Vec<u8>> {
    let Some(last) = prefix.iter().rposition(|byte| *byte != u8::MAX) else { return Bound::Unbounded };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Bound::Excluded(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn after_prefix_parts_those_with_the_prefix_from_those_above(
            prefix in proptest::collection::vec(prop_oneof![Just(0u8), Just(254), Just(255)], 0..4),
            key in proptest::collection::vec(prop_oneof![Just(0u8), Just(254), Just(255)], 0..6),
        ) {
            let below_end = match after_prefix(&prefix) {
                Bound::Excluded(end) => key < end,
                _ => true,
            };
            prop_assert_eq!(key.starts_with(&prefix), key >= prefix && below_end);
        }
    }

    #[test]
    fn rows_of_a_table_stay_together() {
        let a = row_key("m", "t", &[255, 255]);
        let b = row_key("m", "t2", &[]);
        assert!(a < b);
        assert!(!b.starts_with(&row_key("m", "t", &[])));
        assert_eq!(a[name_bytes("m", "t")..], [255, 255]);
    }
}
