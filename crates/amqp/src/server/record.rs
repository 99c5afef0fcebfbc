//! The records in a queue's two logs: see docs/formats/amqp-queue.md. Pure.

use std::collections::HashSet;

use bytes::Bytes;
use kiln_log::batch::{self, Builder, Record};

use crate::core::Message;
use crate::wire::{ShortStr, Traits};

/// Names of a message record's headers. The key is the routing key, the value is the body.
const EXCHANGE: &str = "x";
const PROPERTIES: &str = "p";
/// Present on a message that was only put here to save memory, and does not outlive a restart.
const TRANSIENT: &str = "t";

/// A batch is closed when it holds this many bytes: what is read back at least, for one message.
const BATCH_BYTES_TARGET: usize = 256 * 1024;

/// Encodes messages as batches back to back.
pub(super) fn encode_messages<'m>(
    messages: impl Iterator<Item = (&'m Message, bool)>,
    now_ms: i64,
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut builder = Builder::new(now_ms);
    for (message, transient) in messages {
        let headers = [
            (EXCHANGE, message.exchange.as_bytes()),
            (PROPERTIES, message.properties.as_ref()),
            (TRANSIENT, b"".as_slice()),
        ];
        let headers = if transient { &headers[..] } else { &headers[..2] };
        builder.push(&Record {
            key: Some(message.routing_key.as_bytes()),
            value: Some(&message.body),
            headers,
            time_ms: now_ms,
        });
        if builder.bytes() > BATCH_BYTES_TARGET {
            append(&mut out, std::mem::replace(&mut builder, Builder::new(now_ms)));
        }
    }
    if !builder.is_empty() {
        append(&mut out, builder);
    }
    out
}

fn append(out: &mut Vec<u8>, builder: Builder) {
    let batch = builder.finish();
    if out.is_empty() {
        *out = batch;
    } else {
        out.extend_from_slice(&batch);
    }
}

/// A message record, decoded.
pub(super) struct StoredMessage {
    pub(super) offset: i64,
    pub(super) time_ms: i64,
    pub(super) transient: bool,
    pub(super) message: Message,
}

/// Decodes every message in `bytes`, whole batches. A record that is no message is skipped.
pub(super) fn decode_messages(bytes: Vec<u8>) -> Vec<StoredMessage> {
    let shared = Bytes::from(bytes);
    let mut out = Vec::new();
    for (_, batch) in batch::batches(&shared) {
        for record in batch::records(batch) {
            let Ok(record) = record else { break };
            let properties = shared.slice_ref(record.headers.get(PROPERTIES).unwrap_or_default());
            let body = shared.slice_ref(record.value.unwrap_or_default());
            let names = (name(record.headers.get(EXCHANGE)), name(record.key));
            let message = Traits::scan(&properties)
                .ok()
                .and_then(|traits| Message::new(names, properties, body, &traits).ok());
            if let Some(message) = message {
                let transient = record.headers.get(TRANSIENT).is_some();
                out.push(StoredMessage {
                    offset: record.offset.0,
                    time_ms: record.time_ms,
                    transient,
                    message,
                });
            }
        }
    }
    out
}

fn name(octets: Option<&[u8]>) -> ShortStr {
    ShortStr::from_wire(Bytes::copy_from_slice(octets.unwrap_or_default())).unwrap_or_default()
}

const SETTLED: u8 = 1;
const DELIVERED: u8 = 2;
const SNAPSHOT: u8 = 3;

/// A record of the companion log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mark {
    /// These messages are done with.
    Settled(Vec<i64>),
    /// Messages below this offset may have been delivered.
    Delivered(i64),
    /// Below `end`, only `live` are not done with; offsets below `delivered` may have been delivered.
    Snapshot { end: i64, delivered: i64, live: Vec<(i64, i64)> },
}

impl Mark {
    /// A batch with this one record.
    pub(super) fn encode(&self, now_ms: i64) -> Vec<u8> {
        let mut value = Vec::new();
        match self {
            Self::Settled(offsets) => {
                value.push(SETTLED);
                put_varint(&mut value, offsets.len() as i64);
                put_deltas(&mut value, offsets.iter().copied());
            }
            Self::Delivered(below) => {
                value.push(DELIVERED);
                put_varint(&mut value, *below);
            }
            Self::Snapshot { end, delivered, live } => {
                value.push(SNAPSHOT);
                put_varint(&mut value, *end);
                put_varint(&mut value, *delivered);
                put_varint(&mut value, live.len() as i64);
                put_deltas(&mut value, live.iter().flat_map(|&(from, to)| [from, to]));
            }
        }
        let mut builder = Builder::new(now_ms);
        builder.push(&Record { key: None, value: Some(&value), headers: &[], time_ms: now_ms });
        builder.finish()
    }

    /// Decodes a record's value; `None` when it is not one of ours.
    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let (&kind, mut rest) = value.split_first()?;
        let rest = &mut rest;
        match kind {
            SETTLED => Some(Self::Settled(take_deltas(rest, 1)?)),
            DELIVERED => Some(Self::Delivered(take_varint(rest)?)),
            SNAPSHOT => {
                let (end, delivered) = (take_varint(rest)?, take_varint(rest)?);
                let flat = take_deltas(rest, 2)?;
                let live = flat.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
                Some(Self::Snapshot { end, delivered, live })
            }
            _ => None,
        }
    }
}

/// Zigzag, then LEB128.
fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn take_varint(from: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&octet, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(octet & 0x7f) << shift;
        if octet < 0x80 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

fn put_deltas(out: &mut Vec<u8>, values: impl Iterator<Item = i64>) {
    let mut previous = 0;
    for value in values {
        put_varint(out, value - previous);
        previous = value;
    }
}

/// A count, then `per` times as many deltas. The count is believed only as far as there are bytes.
fn take_deltas(from: &mut &[u8], per: i64) -> Option<Vec<i64>> {
    let count = usize::try_from(take_varint(from)?.checked_mul(per)?).ok()?;
    if count > from.len() {
        return None;
    }
    let mut values = Vec::with_capacity(count);
    let mut previous = 0i64;
    for _ in 0..count {
        previous = previous.checked_add(take_varint(from)?)?;
        values.push(previous);
    }
    Some(values)
}

/// What the companion log says, gathered from its first record to its last.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    settled: HashSet<i64>,
    /// Ranges that a snapshot left alive, and where they end to count.
    live: Vec<(i64, i64)>,
    end: i64,
    pub(super) delivered: i64,
}

impl Recovered {
    pub(super) fn apply(&mut self, mark: Mark) {
        match mark {
            Mark::Settled(offsets) => self.settled.extend(offsets),
            Mark::Delivered(below) => self.delivered = self.delivered.max(below),
            Mark::Snapshot { end, delivered, live } => {
                self.settled.retain(|&offset| offset >= end);
                (self.end, self.live) = (end, live);
                self.delivered = self.delivered.max(delivered);
            }
        }
    }

    /// Whether the message at `offset` is still to be delivered.
    pub(super) fn is_live(&self, offset: i64) -> bool {
        if self.settled.contains(&offset) {
            return false;
        }
        offset >= self.end || {
            let at = self.live.partition_point(|&(_, to)| to < offset);
            self.live.get(at).is_some_and(|&(from, _)| from <= offset)
        }
    }
}

/// Joins ascending offsets to inclusive ranges.
pub(super) fn ranges(offsets: impl Iterator<Item = i64>) -> Vec<(i64, i64)> {
    let mut out: Vec<(i64, i64)> = Vec::new();
    for offset in offsets {
        match out.last_mut() {
            Some((_, to)) if *to + 1 == offset => *to = offset,
            _ => out.push((offset, offset)),
        }
    }
    out
}

/// The value of the companion log's record.
pub(super) fn marks(bytes: &[u8]) -> impl Iterator<Item = Mark> + '_ {
    batch::batches(bytes)
        .flat_map(|(_, batch)| batch::records(batch).map_while(Result::ok))
        .filter_map(|record| Mark::decode(record.value?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_back_as_they_were() {
        for mark in [
            Mark::Settled(vec![5, 3, 900_000_000_000]),
            Mark::Delivered(77),
            Mark::Snapshot { end: 100, delivered: 50, live: vec![(3, 9), (60, 60)] },
        ] {
            let batch = mark.encode(1);
            assert_eq!(marks(&batch).collect::<Vec<_>>(), [mark]);
        }
    }

    #[test]
    fn cut_marks_are_refused() {
        let Mark::Settled(_) = Mark::decode(&[SETTLED, 2, 2]).unwrap() else { panic!("one offset") };
        assert_eq!(Mark::decode(&[SETTLED, 40, 2]), None);
        assert_eq!(Mark::decode(&[SNAPSHOT, 2]), None);
        assert_eq!(Mark::decode(&[9]), None);
        assert_eq!(Mark::decode(&[]), None);
    }

    #[test]
    fn a_snapshot_replaces_what_stood_before_it() {
        let mut recovered = Recovered::default();
        recovered.apply(Mark::Settled(vec![1, 2, 12]));
        recovered.apply(Mark::Snapshot { end: 10, delivered: 4, live: ranges([0, 3, 4, 5].into_iter()) });
        let live: Vec<i64> = (0..14).filter(|&offset| recovered.is_live(offset)).collect();
        assert_eq!(live, [0, 3, 4, 5, 10, 11, 13]);
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let properties = crate::wire::Properties::persistent().encode();
        let traits = Traits::scan(&properties).unwrap();
        let names = (ShortStr::from_static("ex"), ShortStr::from_static("key"));
        let message = Message::new(names, properties, Bytes::from_static(b"body"), &traits).unwrap();
        let bytes = encode_messages([(&message, false), (&message, true)].into_iter(), 9);
        let back = decode_messages(bytes);
        assert_eq!(back.len(), 2);
        assert_eq!(back[0].message, message);
        assert_eq!(back.iter().map(|stored| stored.transient).collect::<Vec<_>>(), [false, true]);
    }
}
