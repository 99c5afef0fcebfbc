//! Passwords that were right a moment ago, so that a client that reconnects does not cost a derivation.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use kiln_world::Rng;

use crate::verifier::{KEY_BYTES, Verifier, hmac, same};

/// How many users' passwords are remembered at most.
const VERIFIED_USERS_MAX: usize = 4096;

/// Of each user the last right password, as a digest under a key that only this process has.
///
/// An entry holds the verifier that it passed, so it is worth nothing once the password was changed.
pub(crate) struct Verified {
    key: [u8; KEY_BYTES],
    users: Mutex<HashMap<String, Entry>>,
}

struct Entry {
    digest: [u8; KEY_BYTES],
    verifier: Verifier,
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verified(..)")
    }
}

impl Verified {
    pub(crate) fn new(rng: &dyn Rng) -> Verified {
        let mut key = [0; KEY_BYTES];
        rng.fill(&mut key);
        Verified { key, users: Mutex::default() }
    }

    /// Whether `password` is known to pass `verifier`; false says nothing.
    pub(crate) fn knows(&self, user: &str, password: &str, verifier: &Verifier) -> bool {
        let digest = self.digest(user, password);
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.get(user).is_some_and(|entry| entry.verifier == *verifier && same(&entry.digest, &digest))
    }

    /// Remembers that `password` passed `verifier`.
    pub(crate) fn remember(&self, user: &str, password: &str, verifier: &Verifier) {
        let entry = Entry { digest: self.digest(user, password), verifier: verifier.clone() };
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.len() >= VERIFIED_USERS_MAX && !users.contains_key(user) {
            // Any will do: who is dropped pays one derivation.
            let any = users.keys().next().cloned();
            any.and_then(|any| users.remove(&any));
        }
        users.insert(user.to_owned(), entry);
    }

    fn digest(&self, user: &str, password: &str) -> [u8; KEY_BYTES] {
        let user_bytes = (user.len() as u64).to_le_bytes();
        hmac(&self.key, &[&user_bytes, user.as_bytes(), password.as_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_world::SimRng;

    fn verifier(salt: u8) -> Verifier {
        Verifier::new("p", [salt; 16], 0)
    }

    #[test]
    fn only_the_same_user_password_and_verifier_are_known() {
        let verified = Verified::new(&SimRng::new(1));
        let (first, changed) = (verifier(1), verifier(2));
        assert!(!verified.knows("u", "p", &first));
        verified.remember("u", "p", &first);
        assert!(verified.knows("u", "p", &first));
        assert!(!verified.knows("u", "q", &first));
        assert!(!verified.knows("v", "p", &first));
        assert!(!verified.knows("u", "p", &changed));
    }

    #[test]
    fn the_number_of_users_is_bounded() {
        let verified = Verified::new(&SimRng::new(1));
        let one = verifier(1);
        for user in 0..VERIFIED_USERS_MAX + 3 {
            verified.remember(&user.to_string(), "p", &one);
        }
        assert_eq!(verified.users.lock().unwrap().len(), VERIFIED_USERS_MAX);
    }
}
