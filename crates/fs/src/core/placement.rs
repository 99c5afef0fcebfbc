//! Which OSTs new objects go to.

use std::collections::BTreeMap;

use super::OstIndex;
use super::layout::Stripes;

/// OSTs whose free space differs by less than this share of the largest are taken in turn, as Lustre does
/// (`qos_threshold_rr`).
const BALANCED_PERCENT: u64 = 17;

/// What all candidates deserve together by each choice. Always the same, so that what is left of one choice counts for no more than
/// another choice when room is weighed differently by then.
const WHOLE: i128 = 1 << 96;

/// An OST that has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub ost: OstIndex,
    /// Its room, in bytes.
    pub free_bytes: u64,
}

/// Whose turn it is. Each choice adds to every candidate what it deserves, and takes what all deserve from the one that has
/// most: so each gets its share, spread evenly, without chance.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    credit: BTreeMap<OstIndex, i128>,
}

impl Placement {
    /// The candidates in the order in which a component that is asked for so shall use them; its first OST, where it names
    /// one, is first. Those that it will not use come last.
    pub fn order(&mut self, wanted: Stripes, mut candidates: Vec<Candidate>) -> Vec<OstIndex> {
        self.credit.retain(|ost, _| candidates.iter().any(|candidate| candidate.ost == *ost));
        let weighs = is_unbalanced(&candidates);
        let weight = |candidate: &Candidate| if weighs { i128::from(candidate.free_bytes) + 1 } else { 1 };
        let count = wanted.count.map_or(candidates.len(), usize::from).min(candidates.len());
        let mut order = Vec::with_capacity(candidates.len());
        let is_first = |candidate: &Candidate| Some(candidate.ost) == wanted.first;
        let asked = candidates.iter().position(is_first).filter(|_| count > 0);
        order.extend(asked.map(|at| candidates.swap_remove(at).ost));
        while order.len() < count {
            let chosen = self.choose(&candidates, &weight);
            order.push(candidates.swap_remove(chosen).ost);
        }
        candidates.sort_unstable_by_key(|candidate| candidate.ost);
        order.extend(candidates.into_iter().map(|candidate| candidate.ost));
        order
    }

    /// The index of the candidate whose turn it is.
    fn choose(&mut self, candidates: &[Candidate], weight: &impl Fn(&Candidate) -> i128) -> usize {
        let total: i128 = candidates.iter().map(weight).sum();
        let mut given = 0;
        for candidate in candidates {
            let share = weight(candidate) * (WHOLE / total.max(1));
            given += share;
            *self.credit.entry(candidate.ost).or_default() += share;
        }
        let credit = |at: &usize| (self.credit[&candidates[*at].ost], std::cmp::Reverse(candidates[*at].ost));
        let chosen = (0..candidates.len()).max_by_key(credit).unwrap_or(0);
        *self.credit.entry(candidates[chosen].ost).or_default() -= given;
        chosen
    }
}

fn is_unbalanced(candidates: &[Candidate]) -> bool {
    let free = || candidates.iter().map(|candidate| candidate.free_bytes);
    let (most, least) = (free().max().unwrap_or(0), free().min().unwrap_or(0));
    u128::from(most - least) * 100 > u128::from(most) * u128::from(BALANCED_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Stripes = Stripes { count: Some(1), first: None };

    fn candidates(free: &[u64]) -> Vec<Candidate> {
        free.iter().zip(0..).map(|(&free_bytes, n)| Candidate { ost: OstIndex(n), free_bytes }).collect()
    }

    fn firsts(placement: &mut Placement, free: &[u64], rounds: usize) -> Vec<usize> {
        let mut counts = vec![0; free.len()];
        for _ in 0..rounds {
            counts[usize::from(placement.order(ONE, candidates(free))[0].0)] += 1;
        }
        counts
    }

    #[test]
    fn osts_with_about_the_same_room_are_taken_in_turn() {
        let mut placement = Placement::default();
        let mut turn = || placement.order(ONE, candidates(&[100, 95, 90]))[0].0;
        assert_eq!([turn(), turn(), turn(), turn()], [0, 1, 2, 0]);
        assert_eq!(firsts(&mut Placement::default(), &[100, 95, 90], 30), [10, 10, 10]);
    }

    #[test]
    fn where_more_is_free_more_goes() {
        let counts = firsts(&mut Placement::default(), &[3000, 1000], 40);
        assert_eq!(counts, [30, 10]);
        assert_eq!(firsts(&mut Placement::default(), &[0, 0], 4), [2, 2]);
    }

    #[test]
    fn what_was_weighed_is_not_held_against_who_is_even_by_now() {
        let mut placement = Placement::default();
        firsts(&mut placement, &[3 << 20, 1 << 20], 10);
        assert_eq!(firsts(&mut placement, &[4 << 20, 4 << 20], 10), [5, 5]);
    }

    #[test]
    fn stripes_begin_where_they_are_asked_to_and_each_ost_comes_once() {
        let mut placement = Placement::default();
        let wanted = Stripes { count: Some(2), first: Some(OstIndex(2)) };
        let order = placement.order(wanted, candidates(&[1, 1, 1, 1]));
        assert_eq!(order[0], OstIndex(2));
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3].map(OstIndex));
        let all = Stripes { count: None, first: None };
        assert_eq!(placement.order(all, candidates(&[1, 1, 1])).len(), 3);
        assert_eq!(placement.order(all, Vec::new()), []);
        assert_eq!(
            firsts(&mut placement, &[1, 1, 1, 1], 8),
            [2, 2, 2, 2],
            "what was asked for is nobody's turn"
        );
    }
}
