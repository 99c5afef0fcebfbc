//! What was read from the disks and may be read again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Values of at most so many bytes. What was not asked for since half of it was filled anew is forgotten.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    bytes_max: usize,
    state: Mutex<Generations<K, V>>,
}

#[derive(Debug)]
struct Generations<K, V> {
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
    /// Of `young`. **Invariant:** less than half of `bytes_max`.
    young_bytes: usize,
}

impl<K: Copy + Eq + Hash, V: Clone> Cache<K, V> {
    pub(super) fn new(bytes_max: usize) -> Cache<K, V> {
        let state = Generations { young: HashMap::new(), old: HashMap::new(), young_bytes: 0 };
        Cache { bytes_max, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, Generations<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: K) -> Option<V> {
        let mut state = self.state();
        if let Some((value, _)) = state.young.get(&key) {
            return Some(value.clone());
        }
        let (value, bytes) = state.old.remove(&key)?;
        self.put_in(&mut state, key, value.clone(), bytes);
        Some(value)
    }

    pub(super) fn put(&self, key: K, value: V, bytes: usize) {
        self.put_in(&mut self.state(), key, value, bytes);
    }

    fn put_in(&self, state: &mut Generations<K, V>, key: K, value: V, bytes: usize) {
        if state.young.insert(key, (value, bytes)).is_none() {
            state.young_bytes += bytes;
        }
        if state.young_bytes * 2 >= self.bytes_max {
            state.old = std::mem::take(&mut state.young);
            state.young_bytes = 0;
        }
    }

    pub(super) fn forget(&self, key: K) {
        let mut state = self.state();
        if let Some((_, bytes)) = state.young.remove(&key) {
            state.young_bytes -= bytes;
        }
        state.old.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_is_forgotten() {
        let cache = Cache::new(100);
        cache.put(1, "one", 10);
        for other in 2..200 {
            cache.put(other, "other", 10);
            assert_eq!(cache.get(1), Some("one"));
        }
        assert_eq!(cache.get(2), None);
        let state = cache.state();
        assert!(state.young.len() + state.old.len() <= 10);
        drop(state);
        cache.forget(1);
        assert_eq!(cache.get(1), None);
    }
}
