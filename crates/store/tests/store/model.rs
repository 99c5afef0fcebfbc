//! Random commands against a plain map, with reopens, power failures and moves of the whole state in between.

use std::collections::BTreeMap;

use crate::common::{Bench, Command, Rejection, Running, accounts, count};
use kiln_store::SubmitError;
use kiln_world::SimDisk;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Submit(Command),
    /// Close and open.
    Reopen,
    /// Power failure and open.
    Crash,
    /// Export, and import into an empty store on another disk, which takes the place of this one.
    Move,
}

fn step() -> impl Strategy<Value = Step> {
    let command = prop_oneof![
        (0..4_u8, 0..100_u32).prop_map(|(account, amount)| Command::Deposit { account, amount }),
        (0..4_u8, 0..4_u8, 0..100_u32).prop_map(|(from, to, amount)| Command::Transfer { from, to, amount }),
        (0..4_u8).prop_map(|account| Command::Close { account }),
        Just(Command::Audit),
    ];
    prop_oneof![
        12 => command.prop_map(Step::Submit),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        1 => Just(Step::Move),
    ]
}

/// What the store should hold.
#[derive(Debug, Default, Clone)]
struct Model {
    accounts: BTreeMap<u8, u64>,
    accepted: u64,
    submitted: u64,
}

impl Model {
    fn submit(&mut self, command: &Command) -> Result<u64, Rejection> {
        self.submitted += 1;
        let mut next = self.accounts.clone();
        let reply = Model::apply(&mut next, command)?;
        self.accounts = next;
        self.accepted += 1;
        Ok(reply)
    }

    fn apply(accounts: &mut BTreeMap<u8, u64>, command: &Command) -> Result<u64, Rejection> {
        match command {
            Command::Deposit { account, amount } => {
                let balance = accounts.entry(*account).or_default();
                *balance += u64::from(*amount);
                Ok(*balance)
            }
            Command::Transfer { from, to, amount } => {
                *accounts.entry(*to).or_default() += u64::from(*amount);
                let had = *accounts.get(from).ok_or(Rejection::NoAccount(*from))?;
                let left = had.checked_sub(u64::from(*amount)).ok_or(Rejection::TooLittle(*from, had))?;
                accounts.insert(*from, left);
                Ok(left)
            }
            Command::Close { account } => accounts.remove(account).ok_or(Rejection::NoAccount(*account)),
            Command::Audit => Ok(accounts.values().sum()),
            Command::Fill { .. } => unreachable!("not among the steps"),
        }
    }
}

struct World {
    seed: u64,
    disk: SimDisk,
    bench: Bench,
    running: Running,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new(seed: u64) -> World {
        let disk = SimDisk::new(seed);
        let bench = Bench::small(disk.clone(), 5);
        let running = bench.open().unwrap();
        World {
            seed,
            disk,
            bench,
            running,
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
        }
    }

    fn step(mut self, model: &mut Model, step: &Step) -> World {
        match step {
            Step::Submit(command) => {
                let expected = model.submit(command);
                let reply = self.runtime.block_on(self.running.bank.submit(command.clone()));
                let reply = reply.map_err(|error| match error {
                    SubmitError::Rejected(rejection) => rejection,
                    error => panic!("{error}"),
                });
                assert_eq!(reply, expected, "{command:?}");
            }
            Step::Reopen => {
                self.running.close();
                self.running = self.bench.open().unwrap();
            }
            Step::Crash => {
                self.disk.crash();
                self.running.abandon();
                self.running = self.bench.open().unwrap();
            }
            Step::Move => return self.moved(),
        }
        self
    }

    fn moved(self) -> World {
        let mut stream = Vec::new();
        self.running.store.export(&mut stream).unwrap();
        self.running.close();
        let next = World::new(self.seed + 1);
        next.runtime.block_on(next.running.store.import(std::io::Cursor::new(stream))).unwrap();
        next
    }

    fn check(&self, model: &Model) {
        let snapshot = self.running.bank.read();
        assert_eq!(accounts(&snapshot), model.accounts.clone().into_iter().collect::<Vec<_>>());
        assert_eq!(count(&snapshot), model.accepted);
        assert_eq!(snapshot.revision().unwrap().0, model.submitted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_a_map_does(seed in 0..1_000_u64, steps in proptest::collection::vec(step(), 1..40)) {
        let mut model = Model::default();
        let mut world = World::new(seed);
        for step in &steps {
            world = world.step(&mut model, step);
            world.check(&model);
        }
        world.running.close();
    }

    /// What was applied command by command as they came, and what is applied from the log after a crash in whatever
    /// rounds that makes, is the same to the last byte.
    #[test]
    fn replay_equals_live(seed in 0..1_000_u64, steps in proptest::collection::vec(step(), 1..40)) {
        let mut model = Model::default();
        let mut world = World::new(seed);
        for step in steps.iter().filter(|step| matches!(step, Step::Submit(_))) {
            world = world.step(&mut model, step);
        }
        let (mut live, mut replayed) = (Vec::new(), Vec::new());
        world.running.store.export(&mut live).unwrap();
        world = world.step(&mut model, &Step::Crash);
        world.running.store.export(&mut replayed).unwrap();
        prop_assert_eq!(live, replayed);
        world.running.close();
    }
}
