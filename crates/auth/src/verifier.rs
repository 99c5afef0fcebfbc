//! What is stored in place of a password: the SCRAM-SHA-256 credentials of RFC 5802 and RFC 7677.
//!
//! The same form serves PLAIN, where the password comes over the wire, and SCRAM, where it does not.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The fewest iterations that RFC 7677, section 4, allows.
pub const ITERATIONS_MIN: u32 = 4096;

/// The most iterations that are taken; more would let a stored row keep a processor busy for seconds.
pub const ITERATIONS_MAX: u32 = 10_000_000;

pub(crate) const KEY_BYTES: usize = 32;

type Key = [u8; KEY_BYTES];

/// Random bytes that make equal passwords look different.
pub type Salt = [u8; 16];

/// By this a password is checked. It does not give the password away, but whoever has it can try passwords.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verifier {
    salt: Salt,
    iterations: u32,
    stored_key: Key,
    server_key: Key,
}

impl Verifier {
    /// The verifier of `password`. Takes as long as `iterations` (held between [`ITERATIONS_MIN`] and
    /// [`ITERATIONS_MAX`]) make it, which is their purpose.
    ///
    /// Passwords are compared byte by byte, but for NULs at the end, which HMAC does not see. They are not prepared
    /// as RFC 4013 says, which would change nothing in ASCII.
    pub fn new(password: &str, salt: Salt, iterations: u32) -> Verifier {
        let iterations = iterations.clamp(ITERATIONS_MIN, ITERATIONS_MAX);
        let (stored_key, server_key) = derive(password, &salt, iterations);
        Verifier { salt, iterations, stored_key, server_key }
    }

    /// A verifier that no password is known to pass, and that takes as long as others to say so.
    pub(crate) fn of_nobody(salt: Salt, iterations: u32) -> Verifier {
        let iterations = iterations.clamp(ITERATIONS_MIN, ITERATIONS_MAX);
        Verifier { salt, iterations, stored_key: [0; KEY_BYTES], server_key: [0; KEY_BYTES] }
    }

    /// Whether `password` is the right one. As slow as [`Verifier::new`]; the comparison takes the same time
    /// wherever the difference is.
    pub fn check(&self, password: &str) -> bool {
        let iterations = self.iterations.clamp(1, ITERATIONS_MAX);
        let (stored_key, _) = derive(password, &self.salt, iterations);
        same(&stored_key, &self.stored_key)
    }

    /// The salt, which SCRAM sends to the client.
    pub fn salt(&self) -> &Salt {
        &self.salt
    }

    /// The iteration count, which SCRAM sends to the client.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// `StoredKey` of RFC 5802, section 3: a client's proof is checked against it.
    pub fn stored_key(&self) -> &[u8; 32] {
        &self.stored_key
    }

    /// `ServerKey` of RFC 5802, section 3: the server proves by it that it knows the verifier.
    pub fn server_key(&self) -> &[u8; 32] {
        &self.server_key
    }
}

/// Shows nothing: this ends up in logs.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(..)")
    }
}

/// `StoredKey` and `ServerKey` (RFC 5802, section 3).
fn derive(password: &str, salt: &Salt, iterations: u32) -> (Key, Key) {
    let mut salted = [0; KEY_BYTES];
    pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, iterations, &mut salted);
    let client_key = hmac(&salted, &[b"Client Key"]);
    (Sha256::digest(client_key).into(), hmac(&salted, &[b"Server Key"]))
}

/// HMAC-SHA-256 of `parts` one after the other.
pub(crate) fn hmac(key: &Key, parts: &[&[u8]]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Whether two keys are equal, in a time that does not tell where they differ.
///
/// It compares their HMACs under one key through the library's own constant-time comparison.
pub(crate) fn same(a: &Key, b: &Key) -> bool {
    let mac = |key: &Key| {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"compare").expect("HMAC takes a key of any length");
        mac.update(key);
        mac
    };
    mac(a).verify(&mac(b).finalize().into_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys behind the example exchange of RFC 7677, section 3 (user "user", password "pencil").
    #[test]
    fn rfc_7677_example() {
        let salt: Salt =
            [0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e, 0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81];
        let verifier = Verifier::new("pencil", salt, 4096);
        let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = hmac(verifier.server_key(), &[message.as_bytes()]);
        // v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=
        let expected = [
            0xea, 0xba, 0xe2, 0x4d, 0x10, 0x62, 0xdb, 0x75, 0xa9, 0x45, 0x1f, 0xf0, 0xb6, 0xea, 0x7e, 0x98,
            0xc8, 0x54, 0x65, 0x49, 0xff, 0x74, 0x1e, 0x67, 0x2d, 0x32, 0x51, 0xb2, 0x39, 0x7d, 0xe4, 0x6e,
        ];
        assert_eq!(signature, expected);
        // The client's proof, p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=, undone by the stored key.
        let proof = [
            0x74, 0x7c, 0xdb, 0x65, 0xaa, 0x56, 0x22, 0x4e, 0x23, 0x52, 0x13, 0x7e, 0x52, 0xd7, 0xbd, 0xca,
            0xd6, 0xa0, 0xf7, 0x38, 0xdf, 0x30, 0x78, 0x2c, 0xaa, 0x69, 0xa2, 0xcf, 0xb0, 0x27, 0x75, 0x54,
        ];
        let client_signature = hmac(verifier.stored_key(), &[message.as_bytes()]);
        let client_key: Vec<u8> = proof.iter().zip(client_signature).map(|(a, b)| a ^ b).collect();
        let stored: [u8; 32] = Sha256::digest(client_key).into();
        assert_eq!(&stored, verifier.stored_key());
    }

    #[test]
    fn only_the_right_password_passes() {
        let verifier = Verifier::new("secret", [7; 16], 0);
        assert_eq!(verifier.iterations(), ITERATIONS_MIN);
        assert!(verifier.check("secret"));
        assert!(!verifier.check("Secret") && !verifier.check(""));
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", Verifier::new("x", [1; 16], 0)), "Verifier(..)");
    }
}
