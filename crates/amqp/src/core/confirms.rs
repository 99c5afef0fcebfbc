//! Publisher confirms of one channel: in order, many in one frame.

use std::collections::VecDeque;

/// What happened to one published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// `basic.ack` up to `tag`; `multiple` when it covers more than one.
    Ack {
        /// The last sequence number covered.
        tag: u64,
        /// Whether it covers earlier ones too.
        multiple: bool,
    },
    /// `basic.nack` of one message.
    Nack {
        /// Its sequence number.
        tag: u64,
    },
}

#[derive(Debug)]
struct Batch {
    id: u64,
    last: u64,
    /// Logs whose flush this batch still waits for.
    waiting: usize,
    failed: bool,
    refused: Vec<u64>,
}

/// Batches of published messages in the order of their sequence numbers.
///
/// A batch is what one read of the socket brought. Confirms leave in order, so one `basic.ack` with `multiple` covers
/// all that became durable.
#[derive(Debug, Default)]
pub struct Confirms {
    published: u64,
    confirmed: u64,
    batches: VecDeque<Batch>,
    next_id: u64,
}

impl Confirms {
    /// Counts one published message and gives its sequence number, from 1.
    pub fn count(&mut self) -> u64 {
        self.published += 1;
        self.published
    }

    /// Closes a batch that reaches up to the last number given. It is confirmed once [`Confirms::flushed`] was called
    /// `waiting` times with the id returned. `refused` are numbers to be nacked.
    pub fn close_batch(&mut self, waiting: usize, refused: Vec<u64>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.batches.push_back(Batch { id, last: self.published, waiting, failed: false, refused });
        id
    }

    /// One log has flushed its part of batch `id`, or failed to.
    pub fn flushed(&mut self, id: u64, ok: bool) {
        let first = self.batches.front().map_or(id, |batch| batch.id);
        let at = usize::try_from(id.wrapping_sub(first)).unwrap_or(usize::MAX);
        if let Some(batch) = self.batches.get_mut(at) {
            batch.waiting = batch.waiting.saturating_sub(1);
            batch.failed |= !ok;
        }
    }

    /// What can be told to the publisher now.
    pub fn outcomes(&mut self) -> Vec<Outcome> {
        let mut out = Vec::new();
        while self.batches.front().is_some_and(|batch| batch.waiting == 0) {
            let Some(batch) = self.batches.pop_front() else { break };
            if batch.failed {
                out.extend((self.confirmed + 1..=batch.last).map(|tag| Outcome::Nack { tag }));
            } else {
                self.confirm(&batch, &mut out);
            }
            self.confirmed = batch.last;
        }
        out
    }

    fn confirm(&self, batch: &Batch, out: &mut Vec<Outcome>) {
        let mut from = self.confirmed;
        for &refused in &batch.refused {
            ack_range(from, refused - 1, out);
            out.push(Outcome::Nack { tag: refused });
            from = refused;
        }
        ack_range(from, batch.last, out);
    }
}

/// Acknowledges everything after `from` up to `last`, joining with an acknowledgement that stands right before.
fn ack_range(from: u64, last: u64, out: &mut Vec<Outcome>) {
    if last <= from {
        return;
    }
    if let Some(Outcome::Ack { tag, multiple }) = out.last_mut() {
        *tag = last;
        *multiple = true;
    } else {
        out.push(Outcome::Ack { tag: last, multiple: last - from > 1 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_confirm_in_order_and_together() {
        let mut confirms = Confirms::default();
        assert_eq!([confirms.count(), confirms.count(), confirms.count()], [1, 2, 3]);
        let first = confirms.close_batch(1, vec![]);
        confirms.count();
        let second = confirms.close_batch(1, vec![]);
        confirms.flushed(second, true);
        assert_eq!(confirms.outcomes(), []);
        confirms.flushed(first, true);
        assert_eq!(confirms.outcomes(), [Outcome::Ack { tag: 4, multiple: true }]);
    }

    #[test]
    fn refused_messages_are_nacked_between_the_others() {
        let mut confirms = Confirms::default();
        for tag in 1..5 {
            assert_eq!(confirms.count(), tag);
        }
        confirms.close_batch(0, vec![2]);
        let expected = [
            Outcome::Ack { tag: 1, multiple: false },
            Outcome::Nack { tag: 2 },
            Outcome::Ack { tag: 4, multiple: true },
        ];
        assert_eq!(confirms.outcomes(), expected);
    }

    #[test]
    fn a_failed_flush_nacks_its_batch() {
        let mut confirms = Confirms::default();
        confirms.count();
        let id = confirms.close_batch(1, vec![]);
        confirms.flushed(id, false);
        assert_eq!(confirms.outcomes(), [Outcome::Nack { tag: 1 }]);
    }
}
