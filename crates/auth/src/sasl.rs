//! SASL mechanisms as parsers of bytes.

use std::fmt;

/// The longest message of the mechanism PLAIN that is taken, in bytes: three fields of 255 octets or more.
pub const PLAIN_BYTES_MAX: usize = 4096;

/// A password as it came from a client; `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Password<'m>(&'m str);

impl<'m> Password<'m> {
    /// The password itself.
    pub fn expose(self) -> &'m str {
        self.0
    }
}

impl fmt::Debug for Password<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// A message of the mechanism PLAIN (RFC 4616, section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plain<'m> {
    /// Who logs in.
    pub user: &'m str,
    /// By what.
    pub password: Password<'m>,
}

/// Why bytes are no message of PLAIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPlain {
    /// Not three fields parted by NUL, one of them too short, or all of it too long.
    #[error("PLAIN response is not [authzid] NUL user NUL password")]
    Malformed,
    /// Not UTF-8.
    #[error("PLAIN response is not UTF-8")]
    Encoding,
    /// It asks to act as somebody else, which is not offered.
    #[error("PLAIN response asks to act as another user")]
    OtherIdentity,
}

impl<'m> Plain<'m> {
    /// Reads `[authzid] NUL authcid NUL passwd`. A user and a password must be there; the identity to act as must
    /// be absent or the user itself.
    pub fn parse(message: &'m [u8]) -> Result<Plain<'m>, BadPlain> {
        if message.len() > PLAIN_BYTES_MAX {
            return Err(BadPlain::Malformed);
        }
        let message = std::str::from_utf8(message).map_err(|_| BadPlain::Encoding)?;
        let mut fields = message.split('\0');
        let (Some(act_as), Some(user), Some(password), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(BadPlain::Malformed);
        };
        if user.is_empty() || password.is_empty() {
            return Err(BadPlain::Malformed);
        }
        if !act_as.is_empty() && act_as != user {
            return Err(BadPlain::OtherIdentity);
        }
        Ok(Plain { user, password: Password(password) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(message: &[u8]) -> Result<(&str, &str), BadPlain> {
        Plain::parse(message).map(|plain| (plain.user, plain.password.expose()))
    }

    /// The examples of RFC 4616, section 4, and what pika sends.
    #[test]
    fn messages_are_taken_apart() {
        assert_eq!(parts(b"\0tim\0tanstaaftanstaaf"), Ok(("tim", "tanstaaftanstaaf")));
        assert_eq!(parts(b"\0guest\0guest"), Ok(("guest", "guest")));
        assert_eq!(parts(b"guest\0guest\0p"), Ok(("guest", "p")));
        assert_eq!(parts(b"Ursel\0Kurt\0xipj3plmq"), Err(BadPlain::OtherIdentity));
    }

    #[test]
    fn strange_bytes_are_refused() {
        for message in [&b""[..], b"guest", b"\0guest", b"\0\0guest", b"\0guest\0", b"\0a\0b\0c"] {
            assert_eq!(parts(message), Err(BadPlain::Malformed), "{message:?}");
        }
        assert_eq!(parts(b"\0\xFF\0x"), Err(BadPlain::Encoding));
        assert_eq!(parts(&[b'a'; PLAIN_BYTES_MAX + 1]), Err(BadPlain::Malformed));
    }

    #[test]
    fn debug_shows_no_password() {
        let shown = format!("{:?}", Plain::parse(b"\0tim\0hidden").unwrap());
        assert!(shown.contains("tim") && !shown.contains("hidden"), "{shown}");
    }
}
