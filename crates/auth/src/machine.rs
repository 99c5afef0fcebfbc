//! Users, virtual hosts and permissions as rows, and the commands that change them.

use kiln_store::{Machine, Tables};
use kiln_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::permission::Permissions;
use crate::verifier::Verifier;
use crate::{ADMINISTRATOR, DEFAULT_USER, DEFAULT_VHOST, NAME_BYTES_MAX};

/// Key: the user's name. Value: [`User`].
pub(crate) const USERS: &str = "users";
/// Key: the name. Value: [`Vhost`].
pub(crate) const VHOSTS: &str = "vhosts";
/// Key: [`permission_key`]. Value: [`Permissions`].
pub(crate) const PERMISSIONS: &str = "permissions";
/// Key: [`SEEDED`], which is there once the first user and virtual host were made.
pub(crate) const META: &str = "meta";
pub(crate) const SEEDED: &[u8] = b"seeded";

/// The machine of users and permissions.
#[derive(Debug, Default, Clone, Copy)]
pub struct AuthMachine;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its password's verifier.
    pub verifier: Verifier,
    /// What it may administer, as in `RabbitMQ`: `administrator`, `monitoring`, ...
    pub tags: Vec<String>,
    /// Whether it may come from this host only.
    pub loopback_only: bool,
}

/// A virtual host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vhost {
    /// When it was made.
    pub created: Timestamp,
}

/// A change. Patterns in it were checked by [`crate::Auth`]; a bad one allows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Makes the default user and virtual host, the first time only.
    Seed(Seed),
    /// Makes a user.
    AddUser {
        /// Its name, not taken yet.
        name: String,
        /// The rest.
        user: User,
    },
    /// Changes a password.
    SetPassword {
        /// Whose.
        name: String,
        /// Of the new one.
        verifier: Verifier,
    },
    /// Replaces a user's tags.
    SetTags {
        /// Whose.
        name: String,
        /// All of them.
        tags: Vec<String>,
    },
    /// Removes a user with its permissions.
    DeleteUser {
        /// Its name.
        name: String,
    },
    /// Makes a virtual host; one that is there stays as it is.
    AddVhost {
        /// Its name.
        name: String,
    },
    /// Removes a virtual host with the permissions in it.
    DeleteVhost {
        /// Its name.
        name: String,
    },
    /// Replaces a user's permissions in a virtual host.
    SetPermissions {
        /// Whose.
        user: String,
        /// Where.
        vhost: String,
        /// All of them.
        permissions: Permissions,
    },
    /// Takes a user's permissions in a virtual host away; without any it cannot enter.
    ClearPermissions {
        /// Whose.
        user: String,
        /// Where.
        vhost: String,
    },
}

/// What the default user is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// Of the default user's password.
    pub verifier: Verifier,
}

/// Why a change was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No such user.
    #[error("there is no user {0:?}")]
    NoUser(String),
    /// The name is taken.
    #[error("there is a user {0:?} already")]
    UserExists(String),
    /// No such virtual host.
    #[error("there is no virtual host {0:?}")]
    NoVhost(String),
    /// Empty, too long, or with a NUL in it.
    #[error("{0:?} is no name: it must have 1 to {NAME_BYTES_MAX} bytes, none of them NUL")]
    BadName(String),
}

/// `user NUL vhost`; no name holds a NUL.
pub(crate) fn permission_key(user: &str, vhost: &str) -> Vec<u8> {
    [user.as_bytes(), &[0], vhost.as_bytes()].concat()
}

/// Takes a [`permission_key`] apart.
pub(crate) fn split_permission_key(key: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(key).ok()?.split_once('\0')
}

impl Machine for AuthMachine {
    const NAME: &'static str = "auth";
    type Command = Command;
    type Reply = ();
    type Rejection = Rejection;

    fn apply(&self, tables: &mut Tables<'_>, command: Command, at: Timestamp) -> Result<(), Rejection> {
        match command {
            Command::Seed(seed) => {
                apply_seed(tables, seed, at);
                Ok(())
            }
            Command::AddUser { name, user } => add_user(tables, name, &user),
            Command::SetPassword { name, verifier } => {
                change_user(tables, name, |user| user.verifier = verifier)
            }
            Command::SetTags { name, tags } => change_user(tables, name, |user| user.tags = tags),
            Command::DeleteUser { name } => delete_user(tables, name),
            Command::AddVhost { name } => add_vhost(tables, &name, at),
            Command::DeleteVhost { name } => delete_vhost(tables, name),
            Command::SetPermissions { user, vhost, permissions } => {
                set_permissions(tables, &user, &vhost, &permissions)
            }
            Command::ClearPermissions { user, vhost } => clear_permissions(tables, &user, &vhost),
        }
    }
}

fn apply_seed(tables: &mut Tables<'_>, seed: Seed, at: Timestamp) {
    if tables.has(META, SEEDED) {
        return;
    }
    tables.put(META, SEEDED, &());
    let guest = User { verifier: seed.verifier, tags: vec![ADMINISTRATOR.to_owned()], loopback_only: true };
    tables.put(USERS, DEFAULT_USER.as_bytes(), &guest);
    tables.put(VHOSTS, DEFAULT_VHOST.as_bytes(), &Vhost { created: at });
    tables.put(PERMISSIONS, &permission_key(DEFAULT_USER, DEFAULT_VHOST), &Permissions::full());
}

fn add_user(tables: &mut Tables<'_>, name: String, user: &User) -> Result<(), Rejection> {
    check_name(&name)?;
    if tables.has(USERS, name.as_bytes()) {
        return Err(Rejection::UserExists(name));
    }
    tables.put(USERS, name.as_bytes(), user);
    Ok(())
}

fn change_user(
    tables: &mut Tables<'_>,
    name: String,
    change: impl FnOnce(&mut User),
) -> Result<(), Rejection> {
    let Some(mut user) = tables.get::<User>(USERS, name.as_bytes()) else {
        return Err(Rejection::NoUser(name));
    };
    change(&mut user);
    tables.put(USERS, name.as_bytes(), &user);
    Ok(())
}

fn delete_user(tables: &mut Tables<'_>, name: String) -> Result<(), Rejection> {
    if !tables.delete(USERS, name.as_bytes()) {
        return Err(Rejection::NoUser(name));
    }
    tables.delete_prefix(PERMISSIONS, &permission_key(&name, ""));
    Ok(())
}

fn add_vhost(tables: &mut Tables<'_>, name: &str, at: Timestamp) -> Result<(), Rejection> {
    check_name(name)?;
    if !tables.has(VHOSTS, name.as_bytes()) {
        tables.put(VHOSTS, name.as_bytes(), &Vhost { created: at });
    }
    Ok(())
}

fn delete_vhost(tables: &mut Tables<'_>, name: String) -> Result<(), Rejection> {
    if !tables.delete(VHOSTS, name.as_bytes()) {
        return Err(Rejection::NoVhost(name));
    }
    for (key, _) in tables.scan::<Permissions>(PERMISSIONS, &[]) {
        if split_permission_key(&key).is_some_and(|(_, vhost)| vhost == name) {
            tables.delete(PERMISSIONS, &key);
        }
    }
    Ok(())
}

fn set_permissions(
    tables: &mut Tables<'_>,
    user: &str,
    vhost: &str,
    permissions: &Permissions,
) -> Result<(), Rejection> {
    check_both(tables, user, vhost)?;
    tables.put(PERMISSIONS, &permission_key(user, vhost), permissions);
    Ok(())
}

fn clear_permissions(tables: &mut Tables<'_>, user: &str, vhost: &str) -> Result<(), Rejection> {
    check_both(tables, user, vhost)?;
    tables.delete(PERMISSIONS, &permission_key(user, vhost));
    Ok(())
}

fn check_both(tables: &mut Tables<'_>, user: &str, vhost: &str) -> Result<(), Rejection> {
    if !tables.has(USERS, user.as_bytes()) {
        return Err(Rejection::NoUser(user.to_owned()));
    }
    if !tables.has(VHOSTS, vhost.as_bytes()) {
        return Err(Rejection::NoVhost(vhost.to_owned()));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), Rejection> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
        return Err(Rejection::BadName(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden bytes: commands are in logs and rows in files.
    #[test]
    fn encodings_stay() {
        let add = Command::AddVhost { name: "v".to_owned() };
        assert_eq!(postcard::to_stdvec(&add).unwrap(), [5, 1, b'v']);
        let clear = Command::ClearPermissions { user: "u".to_owned(), vhost: "/".to_owned() };
        assert_eq!(postcard::to_stdvec(&clear).unwrap(), [8, 1, b'u', 1, b'/']);
        let permissions = Permissions { configure: String::new(), write: "w".into(), read: ".*".into() };
        assert_eq!(postcard::to_stdvec(&permissions).unwrap(), [0, 1, b'w', 2, b'.', b'*']);
        let verifier = Verifier::new("x", [9; 16], 4096);
        let user = User { verifier, tags: vec!["a".into()], loopback_only: true };
        let bytes = postcard::to_stdvec(&user).unwrap();
        assert_eq!(bytes[..18], [[9; 16].as_slice(), &[0x80, 0x20]].concat());
        assert_eq!(bytes[18 + 64..], [1, 1, b'a', 1]);
    }

    #[test]
    fn permission_keys_come_apart_again() {
        assert_eq!(split_permission_key(&permission_key("u", "/")), Some(("u", "/")));
        assert_eq!(split_permission_key(b"no nul"), None);
    }
}
