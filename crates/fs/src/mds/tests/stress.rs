//! Clients that keep what they may, change what the others keep, and look for old news.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;

use super::world::*;
use crate::core::{Errno, Ino, SetAttr};
use crate::wire::mds::{Act, Answer, Ask, Make, Op, Reply, Take};

const CLIENTS: usize = 3;
const ROUNDS: usize = 400;
const NAMES: usize = 4;

/// What a client keeps.
#[derive(Default)]
struct Kept {
    /// Names of the root, and what they lead to.
    names: BTreeMap<String, Option<Ino>>,
    /// The versions of attributes.
    attrs: BTreeMap<Ino, u64>,
    /// The highest callback for an inode.
    called: BTreeMap<Ino, u64>,
}

impl Kept {
    fn may_keep(&self, reply: &Reply, ino: Ino) -> bool {
        self.called.get(&ino).is_none_or(|called| *called <= reply.seq)
    }

    fn keep_attr(&mut self, reply: &Reply) {
        let attr = attr(reply);
        if granted(reply, attr.ino).meta && self.may_keep(reply, attr.ino) {
            self.attrs.insert(attr.ino, attr.version);
        }
    }

    fn keep_name(&mut self, reply: &Reply, name: &str, found: Option<Ino>) {
        if granted(reply, Ino::ROOT).names && self.may_keep(reply, Ino::ROOT) {
            self.names.insert(name.to_owned(), found);
        }
    }

    fn give(&mut self, ino: Ino, seq: u64, take: &Take) {
        self.called.insert(ino, seq);
        match take {
            Take::Meta => {
                self.attrs.remove(&ino);
            }
            Take::Name(name) => {
                self.names.remove(std::str::from_utf8(name).unwrap());
            }
            Take::Names => self.names.clear(),
            Take::Data(_) | Take::Unlinked => {}
        }
    }
}

type All = Arc<[Mutex<Kept>; CLIENTS]>;

struct Walker {
    client: Client,
    me: usize,
    all: All,
    random: u64,
}

impl Walker {
    fn random(&mut self, below: usize) -> usize {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % below
    }

    fn name(&mut self) -> (String, usize) {
        let (owner, nth) = (self.random(CLIENTS), self.random(NAMES));
        (format!("{owner}-{nth}"), owner)
    }

    fn round(&mut self) {
        let (name, owner) = self.name();
        match self.random(4) {
            0 if owner == self.me => self.make(&name),
            1 if owner == self.me => self.remove(&name),
            2 => self.chmod(&name),
            _ => {
                self.look_up(&name);
            }
        }
    }

    fn look_up(&mut self, name: &str) -> Option<Ino> {
        let reply = self.client.lookup(name);
        let mut kept = self.all[self.me].lock().unwrap();
        let found = done(&reply).is_ok().then(|| attr(&reply).ino);
        kept.keep_name(&reply, name, found);
        if found.is_some() {
            kept.keep_attr(&reply);
        }
        found
    }

    fn make(&mut self, name: &str) {
        let reply = self.client.change(make(name, Make::Directory));
        if done(&reply) == Err(Errno::EEXIST) {
            return;
        }
        let ino = attr(&reply).ino;
        let mut kept = self.all[self.me].lock().unwrap();
        // What a client changes itself nobody calls back.
        kept.names.remove(name);
        kept.keep_name(&reply, name, Some(ino));
        drop(kept);
        self.check_name(name, Some(ino));
    }

    fn remove(&mut self, name: &str) {
        let act = Act::Rmdir { parent: Ino::ROOT, name: name.into() };
        let reply = self.client.change(act);
        if done(&reply).is_ok() {
            self.all[self.me].lock().unwrap().names.remove(name);
            self.check_name(name, None);
        }
    }

    fn chmod(&mut self, name: &str) {
        let Some(ino) = self.look_up(name) else { return };
        let set = SetAttr { mode: Some(self.random(0o777) as u16), ..SetAttr::default() };
        let reply = self.client.change(Act::Setattr { ino, set });
        let Ok(Answer::Attr(attr)) = &reply.outcome else { return };
        let mut own = self.all[self.me].lock().unwrap();
        own.attrs.remove(&ino);
        own.keep_attr(&reply);
        drop(own);
        for kept in self.all.iter() {
            let version = kept.lock().unwrap().attrs.get(&ino).copied();
            assert!(version.is_none_or(|version| version >= attr.version), "old attributes of {ino:?}");
        }
    }

    /// Nobody but this client changes the name, so nobody may know it otherwise.
    fn check_name(&self, name: &str, is: Option<Ino>) {
        for kept in self.all.iter() {
            let found = kept.lock().unwrap().names.get(name).copied();
            assert!(found.is_none_or(|found| found == is), "{name} is {is:?}, and somebody keeps {found:?}");
        }
    }
}

#[test]
fn nobody_keeps_old_news() {
    let world = World::new(PATIENT, 0);
    let all: All = Arc::new(std::array::from_fn(|_| Mutex::default()));
    let threads: Vec<_> = (0..CLIENTS)
        .map(|me| {
            let mut client = world.client(me as u128 + 1);
            let mut callbacks = client.callbacks();
            let of_giver = Arc::clone(&all);
            let giver = thread::spawn(move || {
                while let Ok(Some(callback)) = callbacks.try_next() {
                    of_giver[me].lock().unwrap().give(callback.ino, callback.seq, &callback.take);
                    callbacks.try_ack(&callback);
                }
            });
            let mut walker = Walker { client, me, all: Arc::clone(&all), random: me as u64 };
            let walks = thread::spawn(move || {
                for _ in 0..ROUNDS {
                    walker.round();
                    walker.client.has_answers();
                }
                walker
            });
            (walks, giver)
        })
        .collect();
    let mut walkers = Vec::new();
    let mut givers = Vec::new();
    for (walks, giver) in threads {
        walkers.push(walks.join().unwrap());
        givers.push(giver);
    }
    // What is still kept is what a stranger is told, who takes nothing.
    let mut stranger = world.client(99);
    for (me, kept) in all.iter().enumerate() {
        let names = kept.lock().unwrap().names.clone();
        for (name, found) in names {
            let told = stranger.ask(Ask::Lookup { parent: Ino::ROOT, name: name.clone().into() });
            assert_eq!(done(&told).is_ok().then(|| attr(&told).ino), found, "{name} of {me}");
        }
    }
    for mut walker in walkers {
        walker.client.call(Op::Bye);
    }
    for giver in givers {
        giver.join().unwrap();
    }
}
