//! Who may work on which range of a file: first come, first served.
//!
//! A claim waits for the claims before it that it cannot go together with, never for one behind it. So nobody starves, and
//! claims cannot wait for each other in a circle, as long as whoever has started needs no other claim to finish.

use super::layout::Extent;

/// What goes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// With others that are shared: who reads at the servers.
    Shared,
    /// With nobody: who changes what is at the servers.
    Exclusive,
}

/// A claim's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// The claims on a file.
#[derive(Debug, Default)]
pub struct Ranges {
    next: u64,
    /// **Invariant:** in the order of their tickets.
    claims: Vec<Claim>,
}

#[derive(Debug)]
struct Claim {
    ticket: Ticket,
    extent: Extent,
    share: Share,
}

impl Claim {
    fn conflicts(&self, extent: Extent, share: Share) -> bool {
        let apart = self.share == Share::Shared && share == Share::Shared;
        !apart && self.extent.start < extent.end && extent.start < self.extent.end
    }
}

impl Ranges {
    /// Queues a claim. It may start when [`Ranges::may_start`] says so, and stands until it is released.
    pub fn claim(&mut self, extent: Extent, share: Share) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.claims.push(Claim { ticket, extent, share });
        ticket
    }

    /// A claim that may start at once, or none.
    pub fn try_claim(&mut self, extent: Extent, share: Share) -> Option<Ticket> {
        let free = !self.claims.iter().any(|claim| claim.conflicts(extent, share));
        free.then(|| self.claim(extent, share))
    }

    /// Whether nothing before this claim is in its way. Once true, it stays true.
    pub fn may_start(&self, ticket: Ticket) -> bool {
        let position = self.position(ticket);
        let mine = &self.claims[position];
        !self.claims[..position].iter().any(|claim| claim.conflicts(mine.extent, mine.share))
    }

    /// The claim is over, or not wanted any more.
    pub fn release(&mut self, ticket: Ticket) {
        let position = self.position(ticket);
        self.claims.remove(position);
    }

    fn position(&self, ticket: Ticket) -> usize {
        self.claims.iter().position(|claim| claim.ticket == ticket).expect("a ticket is released once")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(start: u64, end: u64) -> Extent {
        Extent { start, end }
    }

    #[test]
    fn readers_go_together_and_a_writer_waits_for_those_before_it() {
        let mut ranges = Ranges::default();
        let one = ranges.claim(extent(0, 10), Share::Shared);
        let two = ranges.claim(extent(5, 15), Share::Shared);
        let writer = ranges.claim(extent(9, 12), Share::Exclusive);
        assert!(ranges.may_start(one) && ranges.may_start(two) && !ranges.may_start(writer));
        ranges.release(one);
        assert!(!ranges.may_start(writer), "the second reader is still there");
        ranges.release(two);
        assert!(ranges.may_start(writer));
    }

    #[test]
    fn a_reader_does_not_overtake_a_writer_that_waits() {
        let mut ranges = Ranges::default();
        let reader = ranges.claim(extent(0, 10), Share::Shared);
        let writer = ranges.claim(extent(0, 10), Share::Exclusive);
        let late = ranges.claim(extent(0, 10), Share::Shared);
        assert!(!ranges.may_start(late));
        assert_eq!(ranges.try_claim(extent(3, 4), Share::Shared), None);
        let elsewhere = ranges.try_claim(extent(10, 20), Share::Exclusive).expect("nobody is there");
        ranges.release(elsewhere);
        ranges.release(reader);
        assert!(ranges.may_start(writer) && !ranges.may_start(late));
        ranges.release(writer);
        assert!(ranges.may_start(late));
    }
}
