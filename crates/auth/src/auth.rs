//! What listeners and the command line ask and tell about users.

use std::net::IpAddr;
use std::sync::Arc;

use kiln_store::{Handle, ReadError, Revision, SubmitError};
use kiln_world::Rng;
use tokio::sync::{Semaphore, watch};

use crate::grants::Grants;
use crate::machine::{
    AuthMachine, Command, META, PERMISSIONS, Rejection, SEEDED, Seed, USERS, User, VHOSTS, Vhost,
    split_permission_key,
};
use crate::permission::{Access, BadPattern, Permissions};
use crate::verified::Verified;
use crate::verifier::{ITERATIONS_MIN, Salt, Verifier};
use crate::{ADMINISTRATOR, DEFAULT_USER};

/// How many password derivations run at once; more logins wait. It keeps a crowd of wrong passwords from taking
/// every processor.
const DERIVATIONS_MAX: usize = 2;

/// How passwords are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// PBKDF2 iterations of new passwords.
    pub iterations: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { iterations: 100_000 }
    }
}

/// Who somebody has proved to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's name.
    pub user: Arc<str>,
    /// The tags it had at login.
    pub tags: Vec<String>,
    /// Whether it may come from this host only.
    pub loopback_only: bool,
}

impl Identity {
    /// Whether it may administer everything.
    pub fn is_administrator(&self) -> bool {
        self.tags.iter().any(|tag| tag == ADMINISTRATOR)
    }

    /// Whether it may come from `peer`; `None` is a unix socket.
    pub fn may_come_from(&self, peer: Option<IpAddr>) -> bool {
        !self.loopback_only || peer.is_none_or(|peer| peer.to_canonical().is_loopback())
    }
}

/// Why somebody was not let in. Tell the client no more than that.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoginError {
    /// No such user, or a wrong password.
    #[error("user {0:?} or its password is wrong")]
    Credentials(String),
    /// The user may come from this host only.
    #[error("user {0:?} can only connect via localhost: add a user of your own for other hosts")]
    LoopbackOnly(String),
    /// Users could not be read.
    #[error("look up the user: {0}")]
    Read(#[from] ReadError),
    /// The process is going down.
    #[error("logins are closed")]
    Closed,
}

/// Why a change of users was not made.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A pattern cannot be used.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// An empty password would let everybody in.
    #[error("the password of {0:?} is empty: give one")]
    EmptyPassword(String),
    /// It contradicts what is there, or the store did not take it.
    #[error(transparent)]
    Submit(#[from] SubmitError<Rejection>),
    /// Users could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The process is going down.
    #[error("logins are closed")]
    Closed,
}

/// A user as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserInfo {
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether it may come from this host only.
    pub loopback_only: bool,
}

/// A permission as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermissionEntry {
    /// Whose.
    pub user: String,
    /// Where.
    pub vhost: String,
    /// Which.
    pub permissions: Permissions,
}

/// Users, passwords and permissions. Cloning is cheap.
#[derive(Clone)]
pub struct Auth {
    inner: Arc<Inner>,
}

struct Inner {
    handle: Handle<AuthMachine>,
    rng: Arc<dyn Rng>,
    settings: Settings,
    verified: Verified,
    grants: Grants,
    derivations: Arc<Semaphore>,
    /// Checked in place of a user that does not exist, so that the time does not tell.
    nobody: Verifier,
}

impl Auth {
    /// Starts, and makes the default user and virtual host if this is the first time ever.
    pub async fn open(
        handle: Handle<AuthMachine>,
        rng: Arc<dyn Rng>,
        settings: Settings,
    ) -> Result<Auth, AuthError> {
        let auth = Auth {
            inner: Arc::new(Inner {
                verified: Verified::new(&*rng),
                grants: Grants::new(handle.clone()),
                derivations: Arc::new(Semaphore::new(DERIVATIONS_MAX)),
                nobody: Verifier::of_nobody(new_salt(&*rng), settings.iterations),
                handle,
                rng,
                settings,
            }),
        };
        auth.seed().await?;
        Ok(auth)
    }

    /// Who `user` with `password` is, or `None`. Whether it may come from where it comes is
    /// [`Identity::may_come_from`].
    ///
    /// Takes tens of milliseconds of processor unless the password was right before: [`Auth::login`] is for
    /// connections.
    pub fn check_password(&self, user: &str, password: &str) -> Option<Identity> {
        let row = self.user(user).ok().flatten();
        if let Some(row) = &row
            && self.inner.verified.knows(user, password, &row.verifier)
        {
            return Some(identity(user, row));
        }
        self.inner.derive(user, password, row)
    }

    /// Lets a client from `peer` in (`None` is a unix socket). A derivation, if one is needed, runs apart from the
    /// connections, and takes as long for a user that does not exist as for a wrong password.
    pub async fn login(
        &self,
        user: &str,
        password: &str,
        peer: Option<IpAddr>,
    ) -> Result<Identity, LoginError> {
        let row = self.user(user)?;
        let known = row.as_ref().filter(|row| self.inner.verified.knows(user, password, &row.verifier));
        let found = match known {
            Some(row) => Some(identity(user, row)),
            None => self.derive_apart(user, password, row).await?,
        };
        let identity = found.ok_or_else(|| LoginError::Credentials(user.to_owned()))?;
        if !identity.may_come_from(peer) {
            return Err(LoginError::LoopbackOnly(user.to_owned()));
        }
        Ok(identity)
    }

    /// Whether `user` may do `access` to `resource` in `vhost`. The default exchange is named `amq.default` here.
    ///
    /// Cheap: permissions are kept compiled until one is changed. False when they cannot be read.
    pub fn allowed(&self, user: &str, vhost: &str, access: Access, resource: &str) -> bool {
        let grants = self.inner.grants.of(user, vhost);
        grants.ok().flatten().is_some_and(|grants| grants.allows(access, resource))
    }

    /// Whether `user` may enter `vhost`: it has some permission there, be it to nothing.
    pub fn may_enter(&self, user: &str, vhost: &str) -> bool {
        self.inner.grants.of(user, vhost).ok().flatten().is_some()
    }

    /// Whether there is a virtual host of this name.
    pub fn vhost_exists(&self, name: &str) -> bool {
        self.inner.handle.read().has(VHOSTS, name.as_bytes()).unwrap_or(false)
    }

    /// All users by name.
    pub fn users(&self) -> Result<Vec<UserInfo>, ReadError> {
        let rows = self.inner.handle.read().scan::<User>(USERS, &[])?;
        let info = |(name, user): (Vec<u8>, User)| UserInfo {
            name: String::from_utf8_lossy(&name).into_owned(),
            tags: user.tags,
            loopback_only: user.loopback_only,
        };
        Ok(rows.into_iter().map(info).collect())
    }

    /// All virtual hosts by name.
    pub fn vhosts(&self) -> Result<Vec<(String, Vhost)>, ReadError> {
        let rows = self.inner.handle.read().scan::<Vhost>(VHOSTS, &[])?;
        Ok(rows
            .into_iter()
            .map(|(name, vhost)| (String::from_utf8_lossy(&name).into_owned(), vhost))
            .collect())
    }

    /// All permissions by user, then virtual host.
    pub fn permissions(&self) -> Result<Vec<PermissionEntry>, ReadError> {
        let rows = self.inner.handle.read().scan::<Permissions>(PERMISSIONS, &[])?;
        let entry = |(key, permissions): (Vec<u8>, Permissions)| {
            let (user, vhost) = split_permission_key(&key)?;
            Some(PermissionEntry { user: user.to_owned(), vhost: vhost.to_owned(), permissions })
        };
        Ok(rows.into_iter().filter_map(entry).collect())
    }

    /// Moves on when a virtual host is made or removed: then ask [`Auth::vhosts`].
    pub fn watch_vhosts(&self) -> watch::Receiver<Revision> {
        self.inner.handle.watch(VHOSTS, &[])
    }

    /// Makes a user without permissions.
    pub async fn add_user(&self, name: &str, password: &str, tags: Vec<String>) -> Result<(), AuthError> {
        let verifier = self.verifier(name, password).await?;
        let user = User { verifier, tags, loopback_only: false };
        self.submit(Command::AddUser { name: name.to_owned(), user }).await
    }

    /// Changes a user's password. Connections that are open stay.
    pub async fn set_password(&self, name: &str, password: &str) -> Result<(), AuthError> {
        let verifier = self.verifier(name, password).await?;
        self.submit(Command::SetPassword { name: name.to_owned(), verifier }).await
    }

    /// Replaces a user's tags.
    pub async fn set_tags(&self, name: &str, tags: Vec<String>) -> Result<(), AuthError> {
        self.submit(Command::SetTags { name: name.to_owned(), tags }).await
    }

    /// Removes a user with its permissions.
    pub async fn delete_user(&self, name: &str) -> Result<(), AuthError> {
        self.submit(Command::DeleteUser { name: name.to_owned() }).await
    }

    /// Makes a virtual host, if it is not there.
    pub async fn add_vhost(&self, name: &str) -> Result<(), AuthError> {
        self.submit(Command::AddVhost { name: name.to_owned() }).await
    }

    /// Removes a virtual host with the permissions in it.
    pub async fn delete_vhost(&self, name: &str) -> Result<(), AuthError> {
        self.submit(Command::DeleteVhost { name: name.to_owned() }).await
    }

    /// Replaces a user's permissions in a virtual host.
    pub async fn set_permissions(
        &self,
        user: &str,
        vhost: &str,
        permissions: Permissions,
    ) -> Result<(), AuthError> {
        permissions.check()?;
        let (user, vhost) = (user.to_owned(), vhost.to_owned());
        self.submit(Command::SetPermissions { user, vhost, permissions }).await
    }

    /// Takes a user's permissions in a virtual host away.
    pub async fn clear_permissions(&self, user: &str, vhost: &str) -> Result<(), AuthError> {
        self.submit(Command::ClearPermissions { user: user.to_owned(), vhost: vhost.to_owned() }).await
    }

    async fn seed(&self) -> Result<(), AuthError> {
        if self.inner.handle.read().has(META, SEEDED)? {
            return Ok(());
        }
        // Everybody knows this password, so it needs no costly derivation.
        let verifier = Verifier::new(DEFAULT_USER, new_salt(&*self.inner.rng), ITERATIONS_MIN);
        self.submit(Command::Seed(Seed { verifier })).await
    }

    fn user(&self, name: &str) -> Result<Option<User>, ReadError> {
        self.inner.handle.read().get(USERS, name.as_bytes())
    }

    async fn submit(&self, command: Command) -> Result<(), AuthError> {
        Ok(self.inner.handle.submit(command).await?)
    }

    /// The verifier of a new password, derived apart from the connections.
    async fn verifier(&self, user: &str, password: &str) -> Result<Verifier, AuthError> {
        if password.is_empty() {
            return Err(AuthError::EmptyPassword(user.to_owned()));
        }
        let salt = new_salt(&*self.inner.rng);
        let (password, iterations) = (password.to_owned(), self.inner.settings.iterations);
        self.apart(move |_| Verifier::new(&password, salt, iterations)).await.ok_or(AuthError::Closed)
    }

    async fn derive_apart(
        &self,
        user: &str,
        password: &str,
        row: Option<User>,
    ) -> Result<Option<Identity>, LoginError> {
        let (user, password) = (user.to_owned(), password.to_owned());
        let found = self.apart(move |inner| inner.derive(&user, &password, row)).await;
        found.ok_or(LoginError::Closed)
    }

    /// Runs `work` on a thread that may be kept busy, no more than [`DERIVATIONS_MAX`] at once. `None` when the
    /// runtime is going down.
    async fn apart<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> T + Send + 'static) -> Option<T> {
        let turn = self.inner.derivations.clone().acquire_owned().await.ok()?;
        let inner = self.inner.clone();
        let work = move || {
            let _until_done = turn; // also when the client, and with it this future, goes away
            work(&inner)
        };
        tokio::task::spawn_blocking(work).await.ok()
    }
}

impl Inner {
    /// Checks a password the long way, and remembers it if it is right.
    fn derive(&self, user: &str, password: &str, row: Option<User>) -> Option<Identity> {
        let Some(row) = row else {
            self.nobody.check(password);
            return None;
        };
        if !row.verifier.check(password) {
            return None;
        }
        self.verified.remember(user, password, &row.verifier);
        Some(identity(user, &row))
    }
}

fn identity(name: &str, user: &User) -> Identity {
    Identity { user: name.into(), tags: user.tags.clone(), loopback_only: user.loopback_only }
}

fn new_salt(rng: &dyn Rng) -> Salt {
    let mut salt = Salt::default();
    rng.fill(&mut salt);
    salt
}

#[cfg(test)]
mod tests;
