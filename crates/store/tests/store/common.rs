//! A small machine whose mistakes show, and stores to run it on.

use std::path::Path;
use std::sync::Arc;

use kiln_log::Volume;
use kiln_store::{Handle, Machine, OpenError, Settings, Snapshot, Store, Tables};
use kiln_types::Timestamp;
use kiln_world::{Disk, SimClock};
use serde::{Deserialize, Serialize};

/// Accounts with balances; every command also writes a line in a journal, so that one applied twice, or half, is
/// seen.
pub(crate) struct Bank;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Adds to an account, making it if needed. Replies its balance.
    Deposit { account: u8, amount: u32 },
    /// Takes from one account, adds to another; refused after the first write if the first has too little.
    Transfer { from: u8, to: u8, amount: u32 },
    /// Removes an account; refused if there is none.
    Close { account: u8 },
    /// Replies the sum of all balances.
    Audit,
    /// Takes up room.
    Fill { account: u8, bytes: Vec<u8> },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejection {
    #[error("account {0} does not exist")]
    NoAccount(u8),
    #[error("account {0} has only {1}")]
    TooLittle(u8, u64),
}

impl Machine for Bank {
    const NAME: &'static str = "bank";
    type Command = Command;
    type Reply = u64;
    type Rejection = Rejection;

    fn apply(&self, tables: &mut Tables<'_>, command: Command, at: Timestamp) -> Result<u64, Rejection> {
        let written = tables.get::<u64>("journal", b"count").unwrap_or(0);
        tables.put("journal", b"count", &(written + 1));
        tables.put("journal", b"last", &at);
        match command {
            Command::Deposit { account, amount } => Ok(add(tables, account, u64::from(amount))),
            Command::Transfer { from, to, amount } => {
                let amount = u64::from(amount);
                add(tables, to, amount);
                let had = tables.get::<u64>("accounts", &[from]).ok_or(Rejection::NoAccount(from))?;
                let left = had.checked_sub(amount).ok_or(Rejection::TooLittle(from, had))?;
                tables.put("accounts", &[from], &left);
                Ok(left)
            }
            Command::Close { account } => {
                let had = tables.get::<u64>("accounts", &[account]).ok_or(Rejection::NoAccount(account))?;
                assert!(tables.delete("accounts", &[account]));
                assert!(!tables.delete("accounts", &[account]));
                Ok(had)
            }
            Command::Audit => {
                Ok(tables.scan::<u64>("accounts", &[]).iter().map(|(_, balance)| balance).sum())
            }
            Command::Fill { account, bytes } => {
                tables.put("fill", &[account], &bytes);
                Ok(bytes.len() as u64)
            }
        }
    }
}

fn add(tables: &mut Tables<'_>, account: u8, amount: u64) -> u64 {
    let balance = tables.get::<u64>("accounts", &[account]).unwrap_or(0) + amount;
    tables.put("accounts", &[account], &balance);
    balance
}

/// How many commands the journal counts.
pub(crate) fn count(snapshot: &Snapshot) -> u64 {
    snapshot.get("journal", b"count").unwrap().unwrap_or(0)
}

/// All accounts with their balances.
pub(crate) fn accounts(snapshot: &Snapshot) -> Vec<(u8, u64)> {
    let rows = snapshot.scan::<u64>("accounts", &[]).unwrap();
    rows.into_iter().map(|(key, balance)| (key[0], balance)).collect()
}

/// A store that is reopened on one disk, each time as a new process would.
pub(crate) struct Bench {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<SimClock>,
    /// Small numbers make checkpoints and new files frequent.
    pub(crate) settings: Settings,
}

/// A running store.
pub(crate) struct Running {
    pub(crate) volume: Volume,
    pub(crate) store: Store,
    pub(crate) bank: Handle<Bank>,
}

impl Bench {
    pub(crate) fn new(disk: impl Disk) -> Bench {
        Bench {
            disk: Arc::new(disk),
            clock: Arc::new(SimClock::new(Timestamp(1_000_000))),
            settings: Settings::default(),
        }
    }

    /// A store that makes a checkpoint after `rounds` commands and starts a new log file after nearly each.
    pub(crate) fn small(disk: impl Disk, rounds: usize) -> Bench {
        let settings = Settings { checkpoint_rounds: rounds, log_segment_bytes: 200, ..Settings::default() };
        Bench { settings, ..Bench::new(disk) }
    }

    pub(crate) fn open(&self) -> Result<Running, OpenError> {
        let volume = Volume::start(self.disk.clone(), self.clock.clone());
        match Store::builder(volume.clone(), Path::new("store")).machine(Bank).settings(self.settings).open()
        {
            Ok(store) => {
                let bank = store.handle();
                Ok(Running { volume, store, bank })
            }
            Err(error) => {
                volume.close();
                Err(error)
            }
        }
    }
}

impl Running {
    /// Ends it in good order.
    pub(crate) fn close(self) {
        self.store.close().unwrap();
        self.volume.close();
    }

    /// Ends it as it is, whatever became of the disk.
    pub(crate) fn abandon(self) {
        drop(self.store);
        self.volume.close();
    }
}
