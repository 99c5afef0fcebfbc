//! Errors as the protocol reports them: a reply code, a text, and whether channel or connection pays for it.

use std::fmt;

use crate::wire::{MethodId, ShortStr};

/// Reply codes of AMQP 0-9-1 (specification, domain `reply-code`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub enum ReplyCode {
    ConnectionForced = 320,
    AccessRefused = 403,
    NotFound = 404,
    ResourceLocked = 405,
    PreconditionFailed = 406,
    FrameError = 501,
    SyntaxError = 502,
    CommandInvalid = 503,
    ChannelError = 504,
    UnexpectedFrame = 505,
    ResourceError = 506,
    NotAllowed = 530,
    NotImplemented = 540,
    InternalError = 541,
}

/// What an error closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The channel, by `channel.close`.
    Channel,
    /// The connection, by `connection.close`.
    Connection,
}

impl ReplyCode {
    fn name(self) -> &'static str {
        match self {
            Self::ConnectionForced => "CONNECTION_FORCED",
            Self::AccessRefused => "ACCESS_REFUSED",
            Self::NotFound => "NOT_FOUND",
            Self::ResourceLocked => "RESOURCE_LOCKED",
            Self::PreconditionFailed => "PRECONDITION_FAILED",
            Self::FrameError => "FRAME_ERROR",
            Self::SyntaxError => "SYNTAX_ERROR",
            Self::CommandInvalid => "COMMAND_INVALID",
            Self::ChannelError => "CHANNEL_ERROR",
            Self::UnexpectedFrame => "UNEXPECTED_FRAME",
            Self::ResourceError => "RESOURCE_ERROR",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::NotImplemented => "NOT_IMPLEMENTED",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }

    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }

    fn scope(self) -> Scope {
        match self {
            Self::AccessRefused | Self::NotFound | Self::ResourceLocked | Self::PreconditionFailed => {
                Scope::Channel
            }
            _ => Scope::Connection,
        }
    }
}

/// A refused operation, ready to become `channel.close` or `connection.close`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reply code.
    pub code: ReplyCode,
    /// What it closes.
    pub scope: Scope,
    /// The method to blame; `None` means the one being handled.
    pub blame: Option<MethodId>,
    detail: String,
}

impl Refusal {
    /// A refusal whose scope follows from the code, as the specification has it.
    pub fn new(code: ReplyCode, detail: impl Into<String>) -> Self {
        Self { code, scope: code.scope(), blame: None, detail: detail.into() }
    }

    /// The same, closing the connection whatever the code.
    #[must_use]
    pub fn of_connection(self) -> Self {
        Self { scope: Scope::Connection, ..self }
    }

    /// The same, blaming `method`.
    #[must_use]
    pub fn blaming(self, method: MethodId) -> Self {
        Self { blame: Some(method), ..self }
    }

    /// The reply text: `NOT_FOUND - no queue 'n' in vhost '/'`, cut to a short string.
    pub fn text(&self) -> ShortStr {
        let mut text = self.to_string();
        if text.len() > 255 {
            let cut = (0..=255).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            text.truncate(cut);
        }
        ShortStr::try_from(text).unwrap_or_default()
    }

    /// 404 for a queue.
    pub fn no_queue(vhost: &str, name: &str) -> Self {
        Self::new(ReplyCode::NotFound, format!("no queue '{name}' in vhost '{vhost}'"))
    }

    /// 404 for an exchange.
    pub fn no_exchange(vhost: &str, name: &str) -> Self {
        Self::new(ReplyCode::NotFound, format!("no exchange '{name}' in vhost '{vhost}'"))
    }

    /// 405 for another connection's exclusive queue.
    pub fn locked(vhost: &str, name: &str) -> Self {
        Self::new(
            ReplyCode::ResourceLocked,
            format!(
                "cannot obtain exclusive access to locked queue '{name}' in vhost '{vhost}'. It could be originally \
                 declared on another connection or the exclusive property value does not match that of the original \
                 declaration."
            ),
        )
    }

    /// 406.
    pub fn precondition(detail: impl Into<String>) -> Self {
        Self::new(ReplyCode::PreconditionFailed, detail)
    }

    /// 403 on the channel.
    pub fn access(detail: impl Into<String>) -> Self {
        Self::new(ReplyCode::AccessRefused, detail)
    }

    /// 406 for a redeclaration that differs.
    pub fn inequivalent(
        arg: &str,
        what: &str,
        received: impl fmt::Display,
        current: impl fmt::Display,
    ) -> Self {
        Self::precondition(format!(
            "inequivalent arg '{arg}' for {what}: received {received} but current is {current}"
        ))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} - {}", self.code.name(), self.detail)
    }
}

impl std::error::Error for Refusal {}
