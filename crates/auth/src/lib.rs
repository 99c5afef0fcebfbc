//! Users, password verifiers, permissions and SASL exchanges.
//!
//! One set of users serves every plane. They are rows of the store, changed by the commands of [`AuthMachine`];
//! [`Auth`] is what listeners ask: is this the right password, may this user do that.
//!
//! ```text
//! SASL bytes -> sasl::Plain -> Auth::login -> Identity -> Auth::allowed(user, vhost, Access, resource)
//! ```
//!
//! **Invariant:** a password is never stored, logged or put into a command; what is stored is a [`Verifier`], from
//! which it cannot be had back. **Invariant:** no type that holds a secret shows it in `Debug`.

mod auth;
mod grants;
mod machine;
mod permission;
pub mod sasl;
mod verified;
mod verifier;

pub use auth::{Auth, AuthError, Identity, LoginError, PermissionEntry, Settings, UserInfo};
pub use machine::{AuthMachine, Command, Rejection, Seed, User, Vhost};
pub use permission::{Access, BadPattern, PATTERN_BYTES_MAX, Permissions};
pub use verifier::{ITERATIONS_MAX, ITERATIONS_MIN, Salt, Verifier};

/// Longest name of a user or virtual host, in bytes: what a short string of AMQP 0-9-1 holds (section 4.2.5.3).
pub const NAME_BYTES_MAX: usize = 255;

/// The virtual host that is there from the start.
pub const DEFAULT_VHOST: &str = "/";

/// The user that is there from the start; its password is the same word.
pub const DEFAULT_USER: &str = "guest";

/// The tag that lets a user administer everything.
pub const ADMINISTRATOR: &str = "administrator";
