//! The power fails at every sync point of a script; the queue that comes back is held against a model.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use kiln_log::Volume;
use kiln_world::{RealClock, SimDisk, SimRng};

use super::{Home, Memory, Queue};
use crate::core::{Entry, Message, QueueArguments, QueueSpec};
use crate::wire::{Properties, ShortStr, Table, Traits};

/// Seeds of disk and script: each tears the unsynced writes in another way.
const SEEDS: u64 = 6;
/// Steps of a script, and bytes of its largest body.
const STEPS: u64 = 120;
const BODY_BYTES_MAX: u64 = 1500;

fn volume(disk: &SimDisk) -> Volume {
    Volume::manual(Arc::new(disk.clone()), Arc::new(RealClock::new()))
}

fn queue(volume: &Volume) -> Queue {
    let name = ShortStr::from_static("work");
    let home = Home {
        id: 1,
        vhost: ShortStr::from_static("/"),
        volume: volume.clone(),
        dir: PathBuf::from("amqp/%2F/work-1"),
        memory: Arc::new(Memory::new(1 << 20)),
    };
    let arguments = QueueArguments::parse(&Table::new(), "queue").unwrap();
    Queue::new(home, Arc::new(QueueSpec::durable(name, 1)), arguments, 0)
}

fn message(body: Vec<u8>, persistent: bool) -> Arc<Message> {
    let properties = if persistent { Properties::persistent() } else { Properties::default() }.encode();
    let traits = Traits::scan(&properties).unwrap();
    let names = (ShortStr::default(), ShortStr::from_static("work"));
    Arc::new(Message::new(names, properties, Bytes::from(body), &traits).unwrap())
}

/// What became of a message, as far as its publisher and consumer were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Not confirmed: it may be there.
    Published,
    /// Confirmed: it must be there.
    Confirmed,
    /// Acknowledged, not synced: it may be there.
    Acked,
    /// Acknowledged and synced: it must not be there.
    Gone,
}

#[derive(Default)]
struct Model {
    /// The bodies of persistent messages in the order in which they were published, and their fates.
    messages: Vec<(Bytes, Fate)>,
    /// Delivered and not acknowledged.
    held: Vec<Entry>,
}

impl Model {
    fn publish(&mut self, queue: &Queue, rng: &SimRng, step: u64) {
        let count = 1 + rng.below(4);
        let persistent = rng.below(5) > 0;
        let batch: Vec<_> = (0..count)
            .map(|nth| {
                let mut body = format!("{step}.{nth}.").into_bytes();
                body.resize(body.len() + rng.below(BODY_BYTES_MAX) as usize, step as u8);
                message(body, persistent)
            })
            .collect();
        // Without power it is refused, and may be there all the same.
        drop(queue.publish(&batch, 0));
        if persistent {
            self.messages.extend(batch.iter().map(|message| (message.body.clone(), Fate::Published)));
        }
    }

    fn take(&mut self, queue: &Queue, rng: &SimRng) {
        for _ in 0..=rng.below(4) {
            self.held.extend(queue.get(false, 0).0.map(|(entry, _)| entry));
        }
    }

    /// Acknowledges some, in any order.
    fn ack(&mut self, queue: &Queue, rng: &SimRng) {
        let mut acked = Vec::new();
        while !self.held.is_empty() && rng.below(3) > 0 {
            let entry = self.held.swap_remove(rng.below(self.held.len() as u64) as usize);
            self.change(&entry, Fate::Acked);
            acked.push(entry);
        }
        queue.settle(&acked, &[], 0);
    }

    fn requeue(&mut self, queue: &Queue) {
        queue.requeue(std::mem::take(&mut self.held), &[], 0);
    }

    fn change(&mut self, entry: &Entry, to: Fate) {
        let body = entry.message.as_ref().expect("get gives the body").body.clone();
        if let Some((_, fate)) = self.messages.iter_mut().find(|(other, _)| *other == body) {
            *fate = to;
        }
    }

    /// Everything so far is on the disk, unless the power failed.
    fn flush(&mut self, volume: &Volume, disk: &SimDisk) {
        volume.flush_round();
        if disk.is_off() {
            return;
        }
        for (_, fate) in &mut self.messages {
            *fate = match *fate {
                Fate::Published => Fate::Confirmed,
                Fate::Acked => Fate::Gone,
                other => other,
            };
        }
    }

    /// One run of the script, until its end or the loss of power.
    fn run(&mut self, queue: &Queue, volume: &Volume, disk: &SimDisk, rng: &SimRng) {
        for step in 0..STEPS {
            match rng.below(10) {
                0..4 => self.publish(queue, rng, step),
                4..6 => self.take(queue, rng),
                6..8 => self.ack(queue, rng),
                8 => self.requeue(queue),
                _ => self.flush(volume, disk),
            }
            if disk.is_off() {
                return;
            }
        }
    }

    /// What came back is a subsequence of what was published, with all that must be there and nothing that must not.
    fn check(&self, found: &[Bytes], context: &str) {
        let mut found = found.iter().peekable();
        for (body, fate) in &self.messages {
            let is_there = found.next_if(|next| *next == body).is_some();
            match fate {
                Fate::Confirmed => assert!(is_there, "{context}: a confirmed message is gone"),
                Fate::Gone => assert!(!is_there, "{context}: an acknowledged message is back"),
                Fate::Published | Fate::Acked => {}
            }
        }
        assert_eq!(found.next(), None, "{context}: out of order, twice, or half");
    }
}

fn recovered(disk: &SimDisk) -> Vec<Bytes> {
    let volume = volume(disk);
    let queue = queue(&volume);
    queue.recover().unwrap();
    std::iter::from_fn(|| queue.get(true, 0).0)
        .map(|(entry, _)| entry.message.unwrap().body.clone())
        .collect()
}

/// Runs the script of `seed` with the power failing after `syncs`; gives how many syncs succeeded.
fn run_and_crash(seed: u64, syncs: Option<u64>) -> u64 {
    let (disk, rng) = (SimDisk::new(seed), SimRng::new(seed));
    if let Some(syncs) = syncs {
        disk.crash_after_syncs(syncs);
    }
    let volume_before = volume(&disk);
    let queue_before = queue(&volume_before);
    let mut model = Model::default();
    model.run(&queue_before, &volume_before, &disk, &rng);
    let done = disk.syncs();
    disk.crash();
    drop((queue_before, volume_before));
    model.check(&recovered(&disk), &format!("seed {seed}, power failed after {syncs:?} syncs"));
    done
}

#[test]
fn power_failures_lose_nothing_that_was_confirmed() {
    for seed in 0..SEEDS {
        let syncs = run_and_crash(seed, None);
        assert!(syncs > 10, "seed {seed}: the script syncs {syncs} times only");
        for at in 0..syncs {
            run_and_crash(seed, Some(at));
        }
    }
}

/// 600 messages are three segments. However many are acknowledged at a time, the two that are full go once they are
/// dead: a batch that ends just before a segment does must not put off the next look until after the last message.
#[tokio::test]
async fn space_comes_back_however_acknowledgements_are_batched() {
    const SEGMENT_BYTES: u64 = 16 << 20;
    for sizes in [[1; 600].as_slice(), &[250, 128, 222], &[127, 128, 250, 95]] {
        let volume = volume(&SimDisk::new(1));
        let queue = queue(&volume);
        let large = message(vec![0; 64 << 10], true);
        for _ in 0..600 {
            assert!(queue.publish(&[Arc::clone(&large)], 0).0.is_ok());
        }
        volume.flush_round();
        for &size in sizes {
            let taken: Vec<Entry> =
                std::iter::from_fn(|| queue.get(false, 0).0).map(|(entry, _)| entry).take(size).collect();
            if let Some(chore) = queue.settle(&taken, &[], 0).chore {
                chore.run().await;
            }
        }
        let bytes = queue.counts().disk_bytes;
        assert!(bytes <= SEGMENT_BYTES, "{bytes} bytes stay after {} batches", sizes.len());
    }
}
