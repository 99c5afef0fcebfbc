//! What a shell has to say to the leader, numbered and kept until the leader has it on disk. Pure.

use std::collections::VecDeque;

use kiln_types::{JobId, Timestamp};

use super::streams::PIECE_BYTES;
use crate::proto::{OutputEvent, ShellEvent, ShellReport, Timed};

/// Bytes of events in one report, about.
const REPORT_BYTES: usize = 256 * 1024;

/// **Invariant:** `first <= sent <= first + events.len()`. Its length is bounded by the tasks' window of output, since
/// all other events are a few per task.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    events: VecDeque<Timed<ShellEvent>>,
    /// Number of `events[0]`; all before it are acknowledged.
    first: u64,
    /// Number of the event to send next.
    sent: u64,
    /// Whether the leader of this connection has said where to go on.
    synced: bool,
}

impl Outbox {
    /// The outbox of a job that the leader has just started.
    pub(crate) fn new() -> Outbox {
        Outbox { synced: true, ..Outbox::default() }
    }

    pub(crate) fn push(&mut self, at: Timestamp, event: ShellEvent) {
        self.events.push_back(Timed { at, what: event });
    }

    /// Number of the event that comes next.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.synced && self.sent < self.next()
    }

    /// The next report, and marks it sent.
    pub(crate) fn take(&mut self, job: JobId) -> Option<ShellReport> {
        if !self.has_unsent() {
            return None;
        }
        let mut bytes = 0;
        let skip = (self.sent - self.first) as usize;
        let fits = |event: &&Timed<ShellEvent>| {
            let before = bytes;
            bytes += cost(&event.what);
            before < REPORT_BYTES
        };
        let events: Vec<_> = self.events.iter().skip(skip).take_while(fits).cloned().collect();
        let first = self.sent;
        self.sent += events.len() as u64;
        Some(ShellReport { job, first, events })
    }

    /// A new connection: nothing is sent until its leader says where to go on.
    pub(crate) fn disconnected(&mut self) {
        self.synced = false;
    }

    /// The leader has everything before `next`: forgets it, and gives back the bytes of output that this frees. After a
    /// reconnect it goes on from there.
    pub(crate) fn acknowledged(&mut self, next: u64) -> usize {
        let next = next.clamp(self.first, self.next());
        let freed =
            self.events.drain(..(next - self.first) as usize).map(|event| output_cost(&event.what)).sum();
        self.first = next;
        self.sent = if self.synced { self.sent.max(next) } else { next };
        self.synced = true;
        freed
    }

    /// Whether everything that was said is acknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// What the window of output paid for this event.
fn output_cost(event: &ShellEvent) -> usize {
    match event {
        ShellEvent::Output(OutputEvent::Data { data, .. }) => data.0.len() + PIECE_BYTES,
        _ => 0,
    }
}

fn cost(event: &ShellEvent) -> usize {
    output_cost(event).max(PIECE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Blob, Stream};

    fn filled(count: u32) -> Outbox {
        let mut outbox = Outbox::new();
        for task in 0..count {
            let data =
                OutputEvent::Data { stream: Stream::Stdout, task, data: Blob(vec![b'x'; 100]), eof: false };
            outbox.push(Timestamp(i64::from(task)), ShellEvent::Output(data));
        }
        outbox
    }

    fn sent(outbox: &mut Outbox) -> Option<(u64, usize)> {
        outbox.take(JobId::new(1)).map(|report| (report.first, report.events.len()))
    }

    #[test]
    fn what_is_sent_is_kept_until_acknowledged() {
        let mut outbox = filled(5);
        assert_eq!(sent(&mut outbox), Some((0, 5)));
        assert_eq!(sent(&mut outbox), None);
        assert_eq!(outbox.acknowledged(3), 3 * (100 + PIECE_BYTES));
        assert_eq!(sent(&mut outbox), None, "sent already on this connection");
        assert_eq!((outbox.next(), outbox.is_empty()), (5, false));
        outbox.acknowledged(5);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_new_connection_goes_on_where_the_leader_says() {
        let mut outbox = filled(5);
        sent(&mut outbox);
        outbox.acknowledged(2);
        outbox.disconnected();
        assert_eq!(sent(&mut outbox), None, "the leader has not said where");
        outbox.acknowledged(2);
        assert_eq!(sent(&mut outbox), Some((2, 3)));
    }

    #[test]
    fn acknowledgements_out_of_range_are_cut() {
        let mut outbox = filled(2);
        outbox.acknowledged(99);
        assert_eq!((outbox.next(), outbox.is_empty()), (2, true));
        outbox.acknowledged(0);
        assert_eq!(outbox.next(), 2);
    }

    #[test]
    fn reports_are_bounded() {
        let mut outbox = filled(5000);
        let (first, count) = sent(&mut outbox).expect("a report");
        assert!(first == 0 && count < 5000);
        assert_eq!(sent(&mut outbox).expect("the next").0, count as u64);
    }
}
