//! Dead-lettering: the `x-death` header and the rule against endless cycles.

use bytes::Bytes;

use crate::core::Message;
use crate::wire::{DecodeError, Properties, ShortStr, Table, Traits, Value};

/// Why a message left its queue without being acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `basic.reject` or `basic.nack` without requeue.
    Rejected,
    /// Its time to live passed.
    Expired,
    /// The queue was full.
    MaxLength,
}

impl Reason {
    /// The name in `x-death`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
        }
    }
}

/// One death: where, why and when (seconds since the epoch).
#[derive(Debug, Clone)]
pub struct Death<'a> {
    /// The queue that the message left.
    pub queue: &'a ShortStr,
    /// Why.
    pub reason: Reason,
    /// When, in seconds since the epoch.
    pub time: u64,
}

/// The properties of a dead-lettered message: `x-death` extended, `x-first-death-*` set once, `expiration` removed.
pub fn dead_letter_properties(message: &Message, death: &Death<'_>) -> Result<Bytes, DecodeError> {
    let mut properties = Properties::decode(&message.properties)?;
    let mut headers = properties.headers.take().unwrap_or_default();
    let mut deaths = deaths(&headers);
    let entry = match deaths.iter().position(|old| same_death(old, death)) {
        Some(at) => again(deaths.remove(at), death.time),
        None => first(message, death, properties.expiration.as_ref()),
    };
    deaths.insert(0, entry);
    headers.set(X_DEATH, Value::Array(deaths.into_iter().map(Value::Table).collect()));
    if headers.get("x-first-death-reason").is_none() {
        headers.set(ShortStr::from_static("x-first-death-exchange"), (&message.exchange).into());
        headers.set(ShortStr::from_static("x-first-death-queue"), death.queue.into());
        headers.set(ShortStr::from_static("x-first-death-reason"), death.reason.name().into());
    }
    properties.headers = Some(headers);
    properties.expiration = None;
    Ok(properties.encode())
}

const X_DEATH: ShortStr = ShortStr::from_static("x-death");

fn deaths(headers: &Table) -> Vec<Table> {
    let Some(Value::Array(items)) = headers.get("x-death") else { return Vec::new() };
    let tables =
        items.iter().filter_map(|item| if let Value::Table(table) = item { Some(table) } else { None });
    tables.cloned().collect()
}

fn text<'t>(table: &'t Table, name: &str) -> Option<&'t str> {
    table.get(name)?.as_text()
}

fn same_death(old: &Table, death: &Death<'_>) -> bool {
    text(old, "queue") == Some(death.queue.as_str()) && text(old, "reason") == Some(death.reason.name())
}

fn first(message: &Message, death: &Death<'_>, expiration: Option<&ShortStr>) -> Table {
    let mut table = Table::new()
        .with("count", 1i64)
        .with("reason", death.reason.name())
        .with("queue", death.queue)
        .with("time", Value::Timestamp(death.time))
        .with("exchange", &message.exchange)
        .with("routing-keys", Value::Array(vec![(&message.routing_key).into()]));
    if let Some(expiration) = expiration {
        table = table.with("original-expiration", expiration);
    }
    table
}

fn again(mut old: Table, time: u64) -> Table {
    let count = old.get("count").and_then(Value::as_integer).unwrap_or(0);
    old.set(ShortStr::from_static("count"), Value::Long(count.saturating_add(1)));
    old.set(ShortStr::from_static("time"), Value::Timestamp(time));
    old
}

/// Whether a dead-lettered message that comes to `queue` has gone round without ever being rejected: it is dropped.
pub fn is_cycle(properties: &Bytes, queue: &ShortStr) -> bool {
    let Ok(headers) = Traits::header_table(properties) else { return false };
    let deaths = deaths(&headers);
    let Some(at) = deaths.iter().position(|death| text(death, "queue") == Some(queue.as_str())) else {
        return false;
    };
    deaths[..=at].iter().all(|death| text(death, "reason") != Some(Reason::Rejected.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(properties: &Properties, queue: &str, reason: Reason) -> Properties {
        let raw = properties.encode();
        let names = (ShortStr::from_static("x"), ShortStr::from_static("k"));
        let message = Message::new(names, raw.clone(), Bytes::new(), &Traits::scan(&raw).unwrap()).unwrap();
        let queue = ShortStr::try_from(queue).unwrap();
        let raw = dead_letter_properties(&message, &Death { queue: &queue, reason, time: 7 }).unwrap();
        Properties::decode(&raw).unwrap()
    }

    #[test]
    fn a_second_death_in_the_same_queue_counts_up() {
        let fresh = Properties { expiration: Some(ShortStr::from_static("5")), ..Properties::default() };
        let once = dead(&fresh, "q", Reason::Expired);
        assert_eq!(once.expiration, None);
        let twice = dead(&once, "q", Reason::Expired);
        let headers = twice.headers.clone().unwrap();
        let deaths = deaths(&headers);
        assert_eq!(deaths.len(), 1);
        assert_eq!(deaths[0].get("count"), Some(&Value::Long(2)));
        assert_eq!(text(&deaths[0], "original-expiration"), Some("5"));
        assert_eq!(text(&headers, "x-first-death-queue"), Some("q"));
    }

    #[test]
    fn only_cycles_without_a_rejection_are_cut() {
        let expired = dead(&Properties::default(), "q", Reason::Expired).encode();
        let rejected = dead(&Properties::default(), "q", Reason::Rejected).encode();
        let queue = ShortStr::from_static("q");
        assert!(is_cycle(&expired, &queue));
        assert!(!is_cycle(&rejected, &queue));
        assert!(!is_cycle(&expired, &ShortStr::from_static("other")));
    }
}
