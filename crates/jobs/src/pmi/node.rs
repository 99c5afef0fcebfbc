//! PMI state of one job on one node. Pure.

use std::collections::{BTreeMap, BTreeSet};

use pmi::wire::{Request, Response};

/// Most bytes of keys and values that one job may put, over all nodes.
pub(crate) const PAIRS_BYTES_MAX: usize = 64 << 20;
/// Result code for a put beyond [`PAIRS_BYTES_MAX`] (`PMI_ERR_NOMEM`).
const RC_NO_ROOM: i32 = 2;
/// Result code for a barrier that can never complete (`PMI_FAIL`).
const RC_FAIL: i32 = -1;

/// Keys and values.
pub(crate) type Pairs = Vec<(String, String)>;

/// What a request leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answer the task that asked.
    Answer(Response),
    /// The task waits in the barrier; nothing to do yet.
    Wait,
    /// All tasks of the only node are in: answer them all.
    Release,
    /// All tasks of this node are in: send this round and wait for [`Node::exchanged`].
    Exchange(u64, Pairs),
    /// End the whole job.
    Abort(i32),
}

/// What the server knows about one job on one node.
#[derive(Debug)]
pub(crate) struct Node {
    kvsname: String,
    /// Tasks of the whole job.
    size: u32,
    /// Tasks of this node.
    local: usize,
    /// Whether there are other nodes.
    alone: bool,
    pairs: BTreeMap<String, String>,
    bytes: usize,
    /// Put since the last barrier.
    fresh: Pairs,
    /// Tasks in the barrier. **Invariant:** at most `local`.
    inside: BTreeSet<u32>,
    /// Number of the barrier that comes next.
    round: u64,
    /// What this node sent for the round that is open, and for the one before: a leader that restarts has forgotten
    /// both, and another node may still wait for the older one.
    sent: Vec<(u64, Pairs)>,
}

impl Node {
    /// The state for a job of `size` tasks, of which `local` are on this node; `first_round` is the number of the first
    /// barrier.
    pub(crate) fn new(kvsname: String, size: u32, local: usize, first_round: u64, preset: Pairs) -> Node {
        Node {
            kvsname,
            size,
            local,
            alone: local as u64 == u64::from(size),
            pairs: preset.into_iter().collect(),
            bytes: 0,
            fresh: Vec::new(),
            inside: BTreeSet::new(),
            round: first_round,
            sent: Vec::new(),
        }
    }

    /// Acts on what a task asks.
    pub(crate) fn ask(&mut self, task: u32, request: Request) -> Outcome {
        Outcome::Answer(match request {
            Request::Init { version, .. } => Response::Init { rc: if version == 1 { 0 } else { RC_FAIL } },
            Request::GetMaxes => Response::Maxes,
            Request::GetAppnum => Response::Appnum(0),
            Request::GetUniverseSize => Response::UniverseSize(self.size),
            Request::GetMyKvsname => Response::MyKvsname(self.kvsname.clone()),
            Request::Put { key, value, .. } => Response::PutResult { rc: self.put(key, value) },
            Request::Get { key, .. } => Response::GetResult(self.pairs.get(&key).cloned()),
            Request::Finalize => Response::FinalizeAck,
            Request::Abort { exitcode } => return Outcome::Abort(exitcode),
            Request::BarrierIn => return self.enter(task),
        })
    }

    fn put(&mut self, key: String, value: String) -> i32 {
        let cost = key.len() + value.len();
        if self.bytes + cost > PAIRS_BYTES_MAX {
            return RC_NO_ROOM;
        }
        self.bytes += cost;
        if !self.alone {
            self.fresh.push((key.clone(), value.clone()));
        }
        self.pairs.insert(key, value);
        0
    }

    fn enter(&mut self, task: u32) -> Outcome {
        if !self.inside.insert(task) {
            return Outcome::Answer(Response::BarrierOut { rc: RC_FAIL });
        }
        if self.inside.len() < self.local {
            return Outcome::Wait;
        }
        if self.alone {
            self.inside.clear();
            self.round += 1;
            return Outcome::Release;
        }
        let fresh = std::mem::take(&mut self.fresh);
        self.sent.retain(|(round, _)| round + 1 == self.round);
        self.sent.push((self.round, fresh.clone()));
        Outcome::Exchange(self.round, fresh)
    }

    /// Takes in what all nodes put before `round`; `true` when the tasks of this node may leave the barrier. An answer
    /// to another round than the open one is a repeat and changes nothing.
    pub(crate) fn exchanged(&mut self, round: u64, pairs: Pairs) -> bool {
        if round != self.round || self.inside.len() < self.local {
            return false;
        }
        for (key, value) in pairs {
            if self.pairs.get(&key) == Some(&value) {
                continue;
            }
            // Over the bound the pair is left out, and a get of it fails: an error of the program, not our memory.
            let cost = key.len() + value.len();
            if self.bytes + cost <= PAIRS_BYTES_MAX {
                self.bytes += cost;
                self.pairs.insert(key, value);
            }
        }
        self.inside.clear();
        self.round += 1;
        true
    }

    /// What to send again to a leader that may have forgotten it.
    pub(crate) fn resend(&self) -> impl Iterator<Item = (u64, &Pairs)> {
        self.sent.iter().map(|(round, pairs)| (*round, pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Request {
        Request::Put { kvsname: "f1".into(), key: key.into(), value: value.into() }
    }

    fn get(key: &str) -> Request {
        Request::Get { kvsname: "f1".into(), key: key.into() }
    }

    fn value(text: &str) -> Outcome {
        Outcome::Answer(Response::GetResult(Some(text.into())))
    }

    #[test]
    fn one_node_needs_no_leader() {
        let mut node =
            Node::new("f1".into(), 2, 2, 0, vec![("PMI_process_mapping".into(), "(vector,(0,1,2))".into())]);
        assert_eq!(node.ask(0, get("PMI_process_mapping")), value("(vector,(0,1,2))"));
        assert_eq!(node.ask(0, put("a", "1")), Outcome::Answer(Response::PutResult { rc: 0 }));
        assert_eq!(node.ask(0, Request::BarrierIn), Outcome::Wait);
        assert_eq!(node.ask(1, Request::BarrierIn), Outcome::Release);
        assert_eq!(node.ask(1, get("a")), value("1"));
        assert_eq!(node.ask(1, Request::BarrierIn), Outcome::Wait);
    }

    #[test]
    fn nodes_meet_at_each_barrier() {
        let mut nodes = [0, 1].map(|_| Node::new("f1".into(), 2, 1, 1, Vec::new()));
        for round in 1..4 {
            let mut all = Pairs::new();
            for (task, node) in nodes.iter_mut().enumerate() {
                node.ask(task as u32, put(&format!("r{round}t{task}"), "x"));
                let Outcome::Exchange(sent, pairs) = node.ask(task as u32, Request::BarrierIn) else {
                    panic!("an exchange of round {round}")
                };
                assert_eq!((sent, pairs.len()), (round, 1));
                all.extend(pairs);
            }
            for node in &mut nodes {
                assert!(node.exchanged(round, all.clone()));
                assert!(!node.exchanged(round, all.clone()), "a repeat");
                assert_eq!(node.ask(0, get(&format!("r{round}t1"))), value("x"));
            }
        }
        // The last two rounds may still be asked for by a leader that restarted.
        assert_eq!(nodes[0].resend().map(|(round, _)| round).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn a_second_entry_and_a_full_space_are_refused() {
        let mut node = Node::new("f1".into(), 2, 2, 0, Vec::new());
        node.ask(0, Request::BarrierIn);
        assert_eq!(node.ask(0, Request::BarrierIn), Outcome::Answer(Response::BarrierOut { rc: RC_FAIL }));
        node.bytes = PAIRS_BYTES_MAX;
        assert_eq!(node.ask(0, put("a", "1")), Outcome::Answer(Response::PutResult { rc: RC_NO_ROOM }));
    }

    #[test]
    fn an_answer_before_all_are_in_is_ignored() {
        let mut node = Node::new("f1".into(), 3, 2, 0, Vec::new());
        node.ask(0, Request::BarrierIn);
        assert!(!node.exchanged(0, Vec::new()));
    }
}
