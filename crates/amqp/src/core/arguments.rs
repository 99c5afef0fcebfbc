//! The `x-` arguments of `queue.declare`: parsed, checked, compared.

use crate::core::{Refusal, ReplyCode};
use crate::wire::{ShortStr, Table, Value};

/// What a full queue does with a new message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overflow {
    /// Drops the oldest.
    #[default]
    DropHead,
    /// Refuses the new one with `basic.nack`.
    RejectPublish,
    /// Refuses the new one with `basic.nack`, and dead-letters it.
    RejectPublishDeadLetter,
}

/// The arguments that change how a queue behaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueArguments {
    /// `x-message-ttl`, milliseconds.
    pub message_ttl: Option<u64>,
    /// `x-expires`, milliseconds of not being used.
    pub expires: Option<u64>,
    /// `x-max-length`, messages.
    pub max_length: Option<u64>,
    /// `x-max-length-bytes`, octets of bodies.
    pub max_length_bytes: Option<u64>,
    /// `x-max-priority`; 0 is a queue without priorities.
    pub max_priority: u8,
    /// `x-overflow`.
    pub overflow: Overflow,
    /// `x-dead-letter-exchange`.
    pub dead_letter_exchange: Option<ShortStr>,
    /// `x-dead-letter-routing-key`.
    pub dead_letter_routing_key: Option<ShortStr>,
    /// `x-single-active-consumer`.
    pub single_active_consumer: bool,
    /// `x-queue-type` is `quorum`.
    pub quorum: bool,
}

/// Arguments that a redeclaration must repeat.
const COMPARED: [&str; 11] = [
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-single-active-consumer",
    "x-queue-type",
];

/// One declaration's arguments with the name that errors give the queue.
struct Checked<'a> {
    table: &'a Table,
    what: &'a str,
}

impl QueueArguments {
    /// Parses `table`; `what` is the queue as errors name it: `queue 'n' in vhost '/'`. Unknown arguments are ignored.
    pub fn parse(table: &Table, what: &str) -> Result<Self, Refusal> {
        let checked = Checked { table, what };
        let arguments = Self {
            message_ttl: checked.integer("x-message-ttl", 0)?,
            expires: checked.integer("x-expires", 1)?,
            max_length: checked.integer("x-max-length", 0)?,
            max_length_bytes: checked.integer("x-max-length-bytes", 0)?,
            max_priority: checked.max_priority()?,
            overflow: checked.overflow()?,
            dead_letter_exchange: checked.text("x-dead-letter-exchange")?,
            dead_letter_routing_key: checked.text("x-dead-letter-routing-key")?,
            single_active_consumer: table.get("x-single-active-consumer") == Some(&Value::Bool(true)),
            quorum: checked.is_quorum()?,
        };
        if arguments.dead_letter_routing_key.is_some() && arguments.dead_letter_exchange.is_none() {
            return Err(checked.invalid("x-dead-letter-routing-key", "routing_key_but_no_dlx_defined"));
        }
        Ok(arguments)
    }

    /// Checks that a redeclaration repeats the arguments of the first.
    pub fn compare(current: &Table, received: &Table, what: &str) -> Result<(), Refusal> {
        for name in COMPARED {
            match (received.get(name), current.get(name)) {
                (None, None) => {}
                (Some(new), Some(old)) if new.equivalent(old) => {}
                (Some(new), Some(old)) => {
                    return Err(Refusal::inequivalent(name, what, format!("'{new}'"), format!("'{old}'")));
                }
                (Some(new), None) => return Err(Refusal::inequivalent(name, what, typed(new), "none")),
                (None, Some(old)) => return Err(Refusal::inequivalent(name, what, "none", typed(old))),
            }
        }
        Ok(())
    }
}

fn typed(value: &Value) -> String {
    format!("the value '{value}' of type '{}'", value.type_name())
}

impl Checked<'_> {
    fn invalid(&self, name: &str, why: impl std::fmt::Display) -> Refusal {
        Refusal::precondition(format!("invalid arg '{name}' for {}: {why}", self.what))
    }

    fn integer(&self, name: &str, least: i64) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.table.get(name) else { return Ok(None) };
        let Some(number) = value.as_integer() else {
            return Err(self.invalid(name, format!("\"expected integer, got {}\"", value.type_name())));
        };
        if number < 0 {
            return Err(self.invalid(name, format!("{{value_negative,{number}}}")));
        }
        if number < least {
            return Err(self.invalid(name, format!("{{value_zero,{number}}}")));
        }
        Ok(Some(number.unsigned_abs()))
    }

    fn max_priority(&self) -> Result<u8, Refusal> {
        let name = "x-max-priority";
        let number = self.integer(name, 0)?.unwrap_or(0);
        u8::try_from(number).map_err(|_| self.invalid(name, format!("{{max_value_exceeded,{number}}}")))
    }

    fn text(&self, name: &str) -> Result<Option<ShortStr>, Refusal> {
        let Some(value) = self.table.get(name) else { return Ok(None) };
        value.as_text().and_then(|text| ShortStr::try_from(text).ok()).map(Some).ok_or_else(|| {
            Refusal::precondition(format!(
                "invalid type '{}' for arg '{name}' in {}",
                value.type_name(),
                self.what
            ))
        })
    }

    fn overflow(&self) -> Result<Overflow, Refusal> {
        match self.table.get("x-overflow").map(Value::as_text) {
            None | Some(Some("drop-head")) => Ok(Overflow::DropHead),
            Some(Some("reject-publish")) => Ok(Overflow::RejectPublish),
            Some(Some("reject-publish-dlx")) => Ok(Overflow::RejectPublishDeadLetter),
            Some(_) => Err(self.invalid("x-overflow", "invalid_overflow")),
        }
    }

    fn is_quorum(&self) -> Result<bool, Refusal> {
        match self.table.get("x-queue-type").map(|value| value.as_text().unwrap_or(value.type_name())) {
            None | Some("classic") => Ok(false),
            Some("quorum") => Ok(true),
            Some(other) => Err(self.invalid("x-queue-type", format!("\"unsupported queue type '{other}'\""))),
        }
    }
}

/// What quorum queues demand of the declaration besides their arguments.
pub(super) fn check_quorum(
    arguments: &QueueArguments,
    durable: bool,
    exclusive: bool,
    what: &str,
) -> Result<(), Refusal> {
    if !arguments.quorum {
        return Ok(());
    }
    let property = if !durable {
        "invalid property 'non-durable'"
    } else if exclusive {
        "invalid property 'exclusive-owner'"
    } else if arguments.max_priority > 0 {
        let detail = format!("invalid arg 'x-max-priority' for {what} of queue type rabbit_quorum_queue");
        return Err(Refusal::new(ReplyCode::PreconditionFailed, detail));
    } else {
        return Ok(());
    };
    Err(Refusal::precondition(format!("{property} for {what}")))
}
