//! The tables on disk, and how far along the order of commands they are.
//!
//! Rounds are committed without waiting for the disk: the command log already holds them. From time to time a
//! commit is made durable (a checkpoint); a crash falls back to the last one, and the log fills in the rest. Rows
//! and [`Progress`] change in the same transaction, so no command is left out or applied again.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_types::{Offset, Timestamp};
use kiln_world::{Disk, Open};
use redb::{Database, Durability, ReadableDatabase, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::Revision;
use crate::backend::DiskBackend;
use crate::command::{Command, decode_all};
use crate::error::{OpenError, ReadError, TransferError};
use crate::machine::{Outcome, Registry, Unknown};
use crate::snapshot::View;
use crate::tables::{Changes, RowTable, Tables};
use crate::transfer;
use crate::watch::Touched;

/// The version of the state file that this program reads and writes.
pub const FORMAT: u32 = 1;

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");
const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
/// In META: [`FORMAT`], little endian. Its place and encoding are the same in every format.
const META_FORMAT: &str = "format";
/// In META: [`Progress`], postcard.
const META_PROGRESS: &str = "progress";

const FILE: &str = "state.redb";
/// The state file until its first content is whole.
const FILE_UNFINISHED: &str = "state.redb.new";

/// How many bytes of pages redb may keep in memory.
const CACHE_BYTES_MAX: usize = 64 << 20;

/// How far the tables are along the order of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Commands applied since the state was born; travels with an exported state.
    pub(crate) revision: Revision,
    /// Place of the last applied command in this node's order; -1 before the first.
    pub(crate) applied: Offset,
    /// Time of the last applied command.
    pub(crate) at: Timestamp,
}

impl Progress {
    const START: Progress = Progress { revision: Revision(0), applied: Offset(-1), at: Timestamp(0) };
}

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persist {
    Later,
    Now,
}

/// What a round of commands came to.
pub(crate) struct Round {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) touched: Touched,
}

/// Why a round could not be applied. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("command {at}: {why}")]
    Unknown { at: Offset, why: Unknown },
    #[error("command {at}: {why}")]
    Rows { at: Offset, why: ReadError },
    #[error("state file: {0}")]
    State(#[from] redb::Error),
    #[error("progress does not encode: {0}")]
    Progress(#[from] postcard::Error),
}

/// The state file, held by the one who applies.
pub(crate) struct State {
    db: Arc<Database>,
    progress: Progress,
}

impl State {
    /// Opens the state file in `dir`, or makes an empty one.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path) -> Result<State, OpenError> {
        create_dir_durably(disk, dir)?;
        let names = disk.list(dir)?;
        let has = |name: &str| names.iter().any(|entry| entry.name == name);
        if has(FILE_UNFINISHED) {
            disk.remove(&dir.join(FILE_UNFINISHED))?;
        }
        if !has(FILE) {
            create(disk, dir)?;
        }
        let db = open_database(disk, &dir.join(FILE), Open::Existing)?;
        let progress = read_meta(&db)?;
        Ok(State { db: Arc::new(db), progress })
    }

    pub(crate) fn database(&self) -> &Arc<Database> {
        &self.db
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress
    }

    /// Applies `commands`, the first of which has the place `first`, which must be the next.
    pub(crate) fn apply(
        &mut self,
        registry: &Registry,
        first: Offset,
        commands: &[Command],
        persist: Persist,
    ) -> Result<Round, ApplyError> {
        assert_eq!(first, self.progress.applied.next(), "commands are applied in their order, each once");
        let mut round = Round { outcomes: Vec::with_capacity(commands.len()), touched: Touched::none() };
        let mut touched = BTreeSet::new();
        let mut progress = self.progress;
        let transaction = begin(&self.db, persist)?;
        {
            let mut rows = transaction.open_table(ROWS).map_err(redb::Error::from)?;
            for command in commands {
                progress = progress.after(command);
                let (outcome, changes) = apply_one(registry, &rows, progress.applied, command)?;
                if outcome.accepted {
                    touched.extend(merge(&mut rows, changes).map_err(redb::Error::from)?);
                }
                round.outcomes.push(outcome);
            }
        }
        self.commit(transaction, progress)?;
        round.touched = Touched::Keys(touched);
        Ok(round)
    }

    /// Makes everything applied so far durable.
    pub(crate) fn checkpoint(&mut self) -> Result<(), ApplyError> {
        let transaction = begin(&self.db, Persist::Now)?;
        self.commit(transaction, self.progress)
    }

    /// Puts the state of a snapshot stream in place of this one, durably, or changes nothing.
    pub(crate) fn import(&mut self, stream: &mut dyn Read) -> Result<(), TransferError> {
        let storage = |error: redb::Error| TransferError::State(error.to_string());
        let transaction = begin(&self.db, Persist::Now).map_err(storage)?;
        transaction.delete_table(ROWS).map_err(|error| storage(error.into()))?;
        let revision = {
            let mut rows = transaction.open_table(ROWS).map_err(|error| storage(error.into()))?;
            transfer::import(stream, |key, value| {
                rows.insert(key, value).map_err(|error| TransferError::State(error.to_string()))?;
                Ok(())
            })?
        };
        let progress = Progress { revision, ..self.progress };
        self.commit(transaction, progress).map_err(|error| TransferError::State(error.to_string()))
    }

    fn commit(&mut self, transaction: WriteTransaction, progress: Progress) -> Result<(), ApplyError> {
        put_progress(&transaction, progress)?;
        transaction.commit().map_err(redb::Error::from)?;
        self.progress = progress;
        Ok(())
    }
}

impl Progress {
    fn after(self, command: &Command) -> Progress {
        Progress {
            revision: Revision(self.revision.0 + 1),
            applied: self.applied.next(),
            at: self.at.max(command.at),
        }
    }
}

/// Runs one command over `rows`, which it does not change.
fn apply_one(
    registry: &Registry,
    rows: &RowTable<'_>,
    at: Offset,
    command: &Command,
) -> Result<(Outcome, Changes), ApplyError> {
    let mut tables = Tables::new(&command.machine, rows);
    let outcome = registry.apply(&mut tables, command).map_err(|why| ApplyError::Unknown { at, why })?;
    let changes = tables.into_changes().map_err(|why| ApplyError::Rows { at, why })?;
    Ok((outcome, changes))
}

/// Moves a command's changes into the tables and says which keys they were.
fn merge(rows: &mut RowTable<'_>, changes: Changes) -> Result<Vec<Vec<u8>>, redb::StorageError> {
    let mut touched = Vec::with_capacity(changes.len());
    for (key, change) in changes {
        match change {
            Some(value) => drop(rows.insert(key.as_slice(), value.as_slice())?),
            None => drop(rows.remove(key.as_slice())?),
        }
        touched.push(key);
    }
    Ok(touched)
}

fn begin(db: &Database, persist: Persist) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = db.begin_write()?;
    match persist {
        Persist::Later => transaction.set_durability(Durability::None)?,
        // With the allocator's state in the file, an open after a crash need not walk through all of it.
        Persist::Now => transaction.set_quick_repair(true),
    }
    Ok(transaction)
}

fn put_progress(transaction: &WriteTransaction, progress: Progress) -> Result<(), ApplyError> {
    let encoded = postcard::to_stdvec(&progress)?;
    let mut meta = transaction.open_table(META).map_err(redb::Error::from)?;
    meta.insert(META_PROGRESS, encoded.as_slice()).map_err(redb::Error::from)?;
    Ok(())
}

/// A view of the newest state.
pub(crate) fn view(db: &Database) -> Result<View, ReadError> {
    let transaction = db.begin_read().map_err(ReadError::state)?;
    let rows = transaction.open_table(ROWS).map_err(ReadError::state)?;
    let meta = transaction.open_table(META).map_err(ReadError::state)?;
    let progress = meta.get(META_PROGRESS).map_err(ReadError::state)?;
    let progress = progress.ok_or_else(|| ReadError::state("no progress"))?;
    let progress: Progress = decode_all(progress.value()).map_err(ReadError::state)?;
    Ok(View { rows, revision: progress.revision })
}

/// Writes the whole state to `out`.
pub(crate) fn export(db: &Database, out: &mut dyn Write) -> Result<Revision, TransferError> {
    let storage = |error: &dyn std::fmt::Display| TransferError::State(error.to_string());
    let view = view(db).map_err(|error| storage(&error))?;
    let mut export = transfer::Export::start(out, view.revision)?;
    for row in view.rows.range_owned::<&[u8]>(..).map_err(|error| storage(&error))? {
        let (key, value) = row.map_err(|error| storage(&error))?;
        export.row(key.value(), value.value())?;
    }
    export.finish()?;
    Ok(view.revision)
}

/// Creates `dir` and makes its name, and those of its parents, durable.
fn create_dir_durably(disk: &dyn Disk, dir: &Path) -> std::io::Result<()> {
    disk.create_dir_all(dir)?;
    dir.ancestors().skip(1).try_for_each(|parent| disk.sync_dir(parent))
}

/// Makes an empty state file. It gets its name only when it is whole, so a crash leaves none or a good one.
fn create(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    let unfinished: PathBuf = dir.join(FILE_UNFINISHED);
    let db = open_database(disk, &unfinished, Open::New)?;
    write_first(&db).map_err(|error| OpenError::State(error.to_string()))?;
    drop(db);
    disk.open(&unfinished, Open::Existing)?.sync()?;
    disk.rename(&unfinished, &dir.join(FILE))?;
    Ok(disk.sync_dir(dir)?)
}

fn write_first(db: &Database) -> Result<(), ApplyError> {
    let transaction = begin(db, Persist::Now)?;
    transaction.open_table(ROWS).map_err(redb::Error::from)?;
    {
        let mut meta = transaction.open_table(META).map_err(redb::Error::from)?;
        meta.insert(META_FORMAT, FORMAT.to_le_bytes().as_slice()).map_err(redb::Error::from)?;
    }
    put_progress(&transaction, Progress::START)?;
    transaction.commit().map_err(redb::Error::from)?;
    Ok(())
}

fn open_database(disk: &dyn Disk, path: &Path, how: Open) -> Result<Database, OpenError> {
    let backend = DiskBackend::new(disk.open(path, how)?);
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES_MAX);
    builder.create_with_backend(backend).map_err(|error| OpenError::State(error.to_string()))
}

/// Checks the format, before anything else is looked at, and reads the progress.
fn read_meta(db: &Database) -> Result<Progress, OpenError> {
    let state = |error: redb::Error| OpenError::State(error.to_string());
    let transaction = db.begin_read().map_err(|error| state(error.into()))?;
    let meta = transaction.open_table(META).map_err(|error| state(error.into()))?;
    let format = meta.get(META_FORMAT).map_err(|error| state(error.into()))?;
    let format = format.and_then(|format| <[u8; 4]>::try_from(format.value()).ok());
    let format = format.map(u32::from_le_bytes).ok_or(OpenError::Damaged { what: "the format version" })?;
    if format > FORMAT {
        return Err(OpenError::Newer { found: format, known: FORMAT });
    }
    let progress = meta.get(META_PROGRESS).map_err(|error| state(error.into()))?;
    let progress = progress.and_then(|progress| decode_all(progress.value()).ok());
    progress.ok_or(OpenError::Damaged { what: "the progress" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_world::RealDisk;

    #[test]
    fn a_newer_format_is_refused_with_advice() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path()).unwrap();
        let state = State::open(&disk, Path::new("store")).unwrap();
        let transaction = begin(state.database(), Persist::Now).unwrap();
        transaction.open_table(META).unwrap().insert(META_FORMAT, 7_u32.to_le_bytes().as_slice()).unwrap();
        transaction.commit().unwrap();
        drop(state);
        let Err(error) = State::open(&disk, Path::new("store")) else { panic!("format 7 was opened") };
        assert!(matches!(error, OpenError::Newer { found: 7, known: FORMAT }));
        assert!(error.to_string().contains("start it with the version that wrote it"), "{error}");
    }

    #[test]
    fn an_unfinished_file_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("store")).unwrap();
        std::fs::write(dir.path().join("store").join(FILE_UNFINISHED), b"half").unwrap();
        let state = State::open(&disk, Path::new("store")).unwrap();
        assert_eq!(state.progress(), Progress::START);
        assert!(!dir.path().join("store").join(FILE_UNFINISHED).exists());
    }
}
