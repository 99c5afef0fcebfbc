//! The table of rows on disk, and how far along the journal it is.

use std::path::Path;
use std::sync::Arc;

use kiln_store::DiskBackend;
use kiln_types::Offset;
use kiln_world::{Disk, File, Open};
use redb::{Database, ReadOnlyTable, ReadableDatabase, TableDefinition};

use super::error::{Latch, OpenError};
use super::room::Measure;
use crate::core::Errno;
use crate::core::namespace::{Changes, Each, Rows};

/// The version of the table that this program reads and writes.
const FORMAT: u32 = 1;

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");
const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
/// In META: [`FORMAT`], little endian. Its place and encoding are the same in every format.
const META_FORMAT: &str = "format";
/// In META: the place in the journal of the last command that is in the rows, i64, little endian.
const META_APPLIED: &str = "applied";

const FILE: &str = "rows.redb";
/// The table until its first content is whole.
const FILE_UNFINISHED: &str = "rows.redb.new";

/// The open table. Clones are the same one.
#[derive(Clone)]
pub(super) struct Table {
    db: Arc<Database>,
    file: Arc<dyn File>,
}

impl Table {
    /// Opens the table in `dir`, or makes one of the rows `first`. Returns how far it is along the journal.
    pub(super) fn open(
        disk: &dyn Disk,
        dir: &Path,
        cache_bytes: usize,
        first: &dyn Fn() -> Changes,
    ) -> Result<(Table, Offset), OpenError> {
        let names = disk.list(dir)?;
        let has = |name: &str| names.iter().any(|entry| entry.name == name);
        if has(FILE_UNFINISHED) {
            disk.remove(&dir.join(FILE_UNFINISHED))?;
        }
        if !has(FILE) {
            create(disk, dir, &first())?;
        }
        let table = open_file(disk, &dir.join(FILE), Open::Existing, cache_bytes)?;
        let applied = table.read_meta()?;
        Ok((table, applied))
    }

    /// The rows as they are now.
    pub(super) fn view(&self, latch: &Latch) -> Result<View, redb::Error> {
        let rows = self.db.begin_read()?.open_table(ROWS)?;
        Ok(View { rows: Some(rows), latch: latch.clone() })
    }

    /// Makes changes, durably and all at once; the last command that is in them has the place `applied`.
    pub(super) fn write(&self, changes: &Changes, applied: Offset) -> Result<(), redb::Error> {
        let mut transaction = self.db.begin_write()?;
        // With the allocator's state in the file, an open after a crash need not walk through all of it.
        transaction.set_quick_repair(true);
        {
            let mut rows = transaction.open_table(ROWS)?;
            for (key, change) in changes {
                match change {
                    Some(value) => drop(rows.insert(key.as_slice(), value.as_slice())?),
                    None => drop(rows.remove(key.as_slice())?),
                }
            }
            let mut meta = transaction.open_table(META)?;
            meta.insert(META_APPLIED, applied.0.to_le_bytes().as_slice())?;
            meta.insert(META_FORMAT, FORMAT.to_le_bytes().as_slice())?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// How its file is used. Walks through all of it, which takes as long as reading it.
    pub(super) fn measure(&self) -> Result<Measure, redb::Error> {
        let transaction = self.db.begin_write()?;
        let stats = transaction.stats()?;
        transaction.abort()?;
        let live_bytes = stats.allocated_pages() * stats.page_size() as u64;
        let disk_bytes = self.file.disk_bytes().map_err(redb::StorageError::from)?;
        Ok(Measure { live_bytes, free_bytes: disk_bytes.saturating_sub(live_bytes) })
    }

    /// Moves what it holds to the front of its file, and cuts the rest off. `view` must be the only one, and is a new one
    /// afterwards. `false` when somebody else has it open, as who has just run a checkpoint does for a moment.
    pub(super) fn compact(&mut self, view: &mut View) -> Result<bool, redb::Error> {
        let Some(db) = Arc::get_mut(&mut self.db) else { return Ok(false) };
        view.rows = None;
        db.compact()?;
        *view = self.view(&view.latch)?;
        Ok(true)
    }

    /// Checks the format, before anything else is looked at, and reads how far the rows are.
    fn read_meta(&self) -> Result<Offset, OpenError> {
        let meta = self.db.begin_read().map_err(rows_error)?.open_table(META).map_err(rows_error)?;
        let format = meta.get(META_FORMAT).map_err(rows_error)?;
        let format = format.and_then(|format| <[u8; 4]>::try_from(format.value()).ok());
        let format = format.map(u32::from_le_bytes);
        match format {
            None => return Err(OpenError::Damaged { what: "the format of the MDT's table" }),
            Some(found) if found > FORMAT => {
                return Err(OpenError::Newer { what: "the MDT's table", found, known: FORMAT });
            }
            Some(_) => {}
        }
        let applied = meta.get(META_APPLIED).map_err(rows_error)?;
        let applied = applied.and_then(|applied| <[u8; 8]>::try_from(applied.value()).ok());
        let applied =
            applied.ok_or(OpenError::Damaged { what: "the place of the MDT's table in its journal" })?;
        Ok(Offset(i64::from_le_bytes(applied)))
    }
}

/// Makes a table. It gets its name only when it is whole, so a crash leaves none or a good one.
fn create(disk: &dyn Disk, dir: &Path, rows: &Changes) -> Result<(), OpenError> {
    const CACHE_BYTES: usize = 1 << 20;
    const BEFORE_THE_FIRST: Offset = Offset(-1);
    let unfinished = dir.join(FILE_UNFINISHED);
    let table = open_file(disk, &unfinished, Open::New, CACHE_BYTES)?;
    table.write(rows, BEFORE_THE_FIRST).map_err(rows_error)?;
    drop(table);
    disk.open(&unfinished, Open::Existing)?.sync()?;
    disk.rename(&unfinished, &dir.join(FILE))?;
    Ok(disk.sync_dir(dir)?)
}

fn open_file(disk: &dyn Disk, path: &Path, how: Open, cache_bytes: usize) -> Result<Table, OpenError> {
    let file = disk.open(path, how)?;
    let backend = DiskBackend::new(Arc::clone(&file));
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    let db = builder.create_with_backend(backend).map_err(rows_error)?;
    Ok(Table { db: Arc::new(db), file })
}

fn rows_error(error: impl Into<redb::Error>) -> OpenError {
    OpenError::Rows(error.into().to_string())
}

/// Rows as they were at a moment.
pub(super) struct View {
    /// None while the table is compacted, and when that failed.
    rows: Option<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    latch: Latch,
}

impl View {
    fn rows(&self) -> Result<&ReadOnlyTable<&'static [u8], &'static [u8]>, Errno> {
        self.rows.as_ref().ok_or_else(|| self.latch.fail(&"the MDT's table was not opened again"))
    }
}

impl Rows for View {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        let value = self.rows()?.get(key).map_err(|error| self.latch.fail(&error))?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn scan(&self, from: &[u8], to: &[u8], each: &mut Each<'_>) -> Result<(), Errno> {
        let rows = self.rows()?.range(from..to).map_err(|error| self.latch.fail(&error))?;
        for row in rows {
            let (key, value) = row.map_err(|error| self.latch.fail(&error))?;
            if each(key.value(), value.value()).is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_world::SimDisk;

    #[test]
    fn a_newer_format_is_refused_with_advice() {
        let disk = SimDisk::new(1);
        let dir = Path::new("mdt");
        disk.create_dir_all(dir).unwrap();
        let (table, applied) = Table::open(&disk, dir, 1 << 20, &Changes::new).unwrap();
        assert_eq!(applied, Offset(-1));
        let transaction = table.db.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert(META_FORMAT, 7_u32.to_le_bytes().as_slice()).unwrap();
        transaction.commit().unwrap();
        drop(table);
        let Err(error) = Table::open(&disk, dir, 1 << 20, &Changes::new) else {
            panic!("format 7 was opened")
        };
        assert!(matches!(error, OpenError::Newer { found: 7, .. }));
        assert!(error.to_string().contains("start it with the version that wrote it"), "{error}");
    }
}
