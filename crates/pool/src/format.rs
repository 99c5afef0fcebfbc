//! What is on the disks, byte by byte; `docs/formats/pool.md` has the tables. Numbers are big-endian.
//!
//! - [`Checksum`]: what a record is recognised by.
//! - [`Pointer`]: where a record lies and how it is recognised.
//! - [`Label`]: what each disk says of the pool that it belongs to.
//! - [`encode_node`], [`decode_node`]: nodes of trees.
//! - [`MapBlock`]: which sectors are taken.
//! - [`Uberblock`]: the pointer to the root, as of a transaction group.
//! - [`PoolRoot`], [`DatasetRecord`], [`ObjectRecord`]: what the root and the trees hold.
//! - [`LogHead`], [`LogEntry`]: the intent log.
//! - [`ScrubRecord`]: how far a scrub is.
//! - [`NameSlot`]: names of files, where a dataset is a disk of files.

mod bytes;
mod checksum;
mod dataset;
mod extent;
mod label;
mod log;
mod map;
mod name;
mod node;
mod pointer;
mod root;
mod scrub;
mod uberblock;

pub use checksum::{Checksum, ChecksumKind};
pub use dataset::{
    DATASET_NAME_BYTES_MAX, DatasetId, DatasetKind, DatasetRecord, ObjectRecord, dataset_key, is_record,
    object_key, record_key,
};
pub use extent::Extent;
pub use label::{
    CONFIG_AT, CONFIG_BYTES, LABEL_BYTES, Label, LabelError, LeafConfig, LeafId, LeafState, NAME_BYTES_MAX,
    PoolId, PoolState, UBERBLOCKS_AT, Unfit, VdevConfig, VdevKind,
};
pub use log::{LOG_BODY_BYTES_MAX, LOG_HEAD_BYTES, LOG_INLINE_BYTES, LogChange, LogEntry, LogHead, LogStart};
pub use map::{MAP_BYTES, MapBlock, MapError};
pub use name::{NAME_SLOT_BYTES, NameSlot, PATH_BYTES_MAX, check_names_head, encode_names_head};
pub use node::{NodeError, decode_node, encode_node};
pub use pointer::{
    Compression, Kind, PLACES_MAX, POINTER_BYTES, Place, Pointer, PointerError, RECORD_BYTES_MAX, Txg,
    VDEV_SECTORS_MAX, VdevId,
};
pub use root::{PoolRoot, Properties, RecordError};
pub use scrub::{
    DAMAGED_MAX, DamagedRecord, DatasetPart, DatasetSort, ScrubPosition, ScrubRecord, ScrubReport, ScrubState,
};
pub use uberblock::{UBERBLOCK_BYTES, UBERBLOCK_SLOTS, Uberblock, UberblockError};
