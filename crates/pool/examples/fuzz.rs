//! Gives what reads the disks bytes that somebody has meddled with, for so many seconds: `cargo run --release --example fuzz -- 60 [SEED]`.
//!
//! Each round takes something whole, changes bytes of it, makes its checksum right again where it has one (else nothing behind the checksum
//! would ever be reached), and reads it. Whatever it is, it is refused, or has one form: what was read is written as the same bytes. A
//! panic ends the program, and its seed brings the round back.

use std::time::{Duration, Instant};

use kiln_pool::core::ranges::Ranges;
use kiln_pool::core::tree::{Entries, Key, Node, Root};
use kiln_pool::format::{
    Checksum, ChecksumKind, Compression, DamagedRecord, DatasetId, DatasetKind, DatasetPart, DatasetRecord,
    DatasetSort, Extent, Kind, LOG_HEAD_BYTES, Label, LeafConfig, LeafId, LeafState, LogChange, LogEntry,
    LogHead, LogStart, MAP_BYTES, MapBlock, NameSlot, ObjectRecord, POINTER_BYTES, Place, Pointer, PoolId,
    PoolRoot, PoolState, Properties, ScrubPosition, ScrubRecord, ScrubReport, ScrubState, Txg,
    UBERBLOCK_BYTES, Uberblock, VdevConfig, VdevId, VdevKind, check_names_head, decode_node,
    encode_names_head, encode_node, object_key, record_key,
};
use kiln_world::{Rng as _, SimRng};

/// One that is made of bytes: whether it was read, and what it is written as.
type Reads = fn(&[u8]) -> Option<Vec<u8>>;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |usual: u64| arguments.next().map_or(usual, |word| word.parse().expect("a number"));
    let (seconds, seed) = (number(10), number(1));
    let rng = SimRng::new(seed);
    let below = |bound: usize| {
        let mut bytes = [0; 8];
        rng.fill(&mut bytes);
        (u64::from_be_bytes(bytes) % bound.max(1) as u64) as usize
    };
    let wholes = wholes();
    let (begun, mut rounds, mut read) = (Instant::now(), 0_u64, 0_u64);
    while begun.elapsed() < Duration::from_secs(seconds) {
        let (name, whole, reads, sum) = &wholes[below(wholes.len())];
        let mut bytes = whole.clone();
        for _ in 0..=below(4) {
            let at = below(bytes.len());
            match below(4) {
                0 => bytes[at] = below(256) as u8,
                1 => bytes[at] ^= 1 << below(8),
                2 => bytes.swap(at, at / 2),
                _ => bytes.truncate(at.max(1)),
            }
        }
        sum(&mut bytes);
        if let Some(written) = reads(&bytes) {
            assert_eq!(written, bytes, "seed {seed}, round {rounds}: {name} has two forms");
            read += 1;
        }
        rounds += 1;
    }
    println!("{rounds} rounds in {seconds} s, {read} were read, none in two forms; seed {seed}");
}

/// Makes a checksum right again.
type Sums = fn(&mut [u8]);
/// A name, bytes, what reads them, and what makes their checksum right.
type Whole = (&'static str, Vec<u8>, Reads, Sums);

/// What the fuzzer begins with.
fn wholes() -> Vec<Whole> {
    let nothing: Sums = |_| {};
    vec![
        ("a pointer", pointer().encode().to_vec(), read_pointer, nothing),
        ("a packed pointer", pointer().pack(), read_packed, nothing),
        ("a label", label().encode().expect("it is small"), read_label, sum_label),
        ("an uberblock", uberblock().encode(), read_uberblock, sum_uberblock),
        ("a root", root().encode(), read_root, nothing),
        ("a node", encode_node(&node()), read_node, nothing),
        ("a dataset", dataset().encode(), read_dataset, nothing),
        ("an extent", extent(), read_extent, nothing),
        ("an object", ObjectRecord { len: 5, sectors: 2 }.encode(), read_object, nothing),
        ("a map", map(), read_map, nothing),
        ("a scrub", scrub().encode(), read_scrub, nothing),
        ("a head of the log", head().encode(), read_head, sum_head),
        ("entries of the log", entries(), read_entries, nothing),
        ("a name", name().encode(), read_name, nothing),
        (
            "the head of names",
            encode_names_head(),
            |bytes| check_names_head(bytes).ok().map(|()| bytes.to_vec()),
            nothing,
        ),
    ]
}

fn pointer() -> Pointer {
    Pointer {
        kind: Kind::Node,
        places: vec![Place { vdev: VdevId(0), sector: 77 }, Place { vdev: VdevId(1), sector: 88 }],
        compression: Compression::Lz4,
        stored_bytes: 0x3000,
        bytes: 0x4000,
        birth: Txg(9),
        checksum: Checksum::of(ChecksumKind::Xxh3, b"a record"),
    }
}

fn tree() -> Root {
    Root { level: 1, place: pointer().pack() }
}

fn root() -> PoolRoot {
    PoolRoot {
        txg: Txg(9),
        next_dataset: 3,
        datasets: Some(tree()),
        log: LogStart {
            chain: 1,
            seq: 2,
            slot: Place { vdev: VdevId(0), sector: 3 },
            slot_sectors: 64,
            offset: 2,
        },
        properties: Properties { compression: Compression::Zstd, checksum: ChecksumKind::Blake3 },
    }
}

fn label() -> Label {
    let mut missed = Ranges::default();
    missed.insert(5, 9);
    let leaf = |id| LeafConfig {
        id: LeafId(id),
        path: "/dev/sda".into(),
        state: LeafState::Online,
        missed: missed.clone(),
    };
    let vdev = VdevConfig {
        id: VdevId(0),
        kind: VdevKind::Raidz(1),
        leaf_sectors: 1000,
        since: Txg(0),
        leaves: vec![leaf(1), leaf(2), leaf(3)],
    };
    Label {
        pool: PoolId(7),
        name: "tank".into(),
        leaf: LeafId(2),
        txg: Txg(9),
        state: PoolState::Active,
        host: "silicon1".into(),
        vdevs: vec![vdev],
        spares: vec![leaf(4)],
    }
}

fn uberblock() -> Uberblock {
    Uberblock { pool: PoolId(7), txg: Txg(9), time: 1, root: pointer() }
}

fn node() -> Node {
    let mut entries = Entries::default();
    entries.push(object_key(5), &ObjectRecord { len: 5, sectors: 2 }.encode());
    entries.push(record_key(5, 32), &pointer().pack());
    Node { level: 0, entries }
}

fn dataset() -> DatasetRecord {
    let plain = DatasetRecord::new("scratch-OST0000@noon".into(), Txg(3), 1 << 17, DatasetKind::Files);
    let (snapshot_of, before) = (Some(1), Some(2));
    DatasetRecord { root: Some(tree()), snapshot_of, before, dead: Some(tree()), ..plain }
}

/// Its key's vdev and sector, and what is with them.
fn extent() -> Vec<u8> {
    let extent = Extent { place: Place { vdev: VdevId(1), sector: 88 }, sectors: 32, birth: Txg(9) };
    let (key, value) = (extent.key(), extent.encode());
    [&key.object.to_be_bytes()[..], &[key.tag], &key.index.to_be_bytes(), &value].concat()
}

fn map() -> Vec<u8> {
    let mut map = kiln_pool::core::space::Map::new(1000);
    let _ = map.allocate(30, 0);
    MapBlock { pool: PoolId(7), vdev: VdevId(0), stretch: 1, txg: Txg(9), map }.encode()
}

fn scrub() -> ScrubRecord {
    let damaged = vec![DamagedRecord { dataset: Some(DatasetId(1)), object: Some(5), offset: 4096 }];
    ScrubRecord {
        state: ScrubState::Running,
        began_secs: 1,
        ran_ms: 2,
        rate: 3,
        began: Txg(4),
        position: ScrubPosition::In(DatasetSort::Live, 1, DatasetPart::Objects, object_key(5)),
        report: ScrubReport { records: 5, bytes: 6, mended: 1, damaged_records: 1, damaged },
    }
}

fn head() -> LogHead {
    let inline = entries();
    LogHead {
        pool: PoolId(7),
        chain: 1,
        seq: 2,
        next_slot: Place { vdev: VdevId(0), sector: 3 },
        body_bytes: inline.len() as u32,
        body_checksum: Checksum::of(ChecksumKind::Xxh3, &inline),
        inline,
    }
}

fn entries() -> Vec<u8> {
    let changes = [
        LogChange::Destroy,
        LogChange::SetLen(100),
        LogChange::Write { offset: 3, bytes: b"bytes".to_vec() },
        LogChange::Punch { offset: 5, len: 6 },
        LogChange::Place { offset: 1 << 17, pointer: pointer() },
    ];
    let mut bytes = Vec::new();
    for change in changes {
        LogEntry { txg: Txg(9), dataset: 1, object: 2, change }.encode(&mut bytes);
    }
    bytes
}

fn name() -> NameSlot {
    NameSlot { path: "kafka/tasks-0/log.meta".into(), is_dir: false, order: 6 }
}

fn read_pointer(bytes: &[u8]) -> Option<Vec<u8>> {
    let bytes: &[u8; POINTER_BYTES] = bytes.try_into().ok()?;
    Some(Pointer::decode(bytes).ok()?.encode().to_vec())
}

fn read_packed(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(Pointer::unpack(bytes).ok().filter(|_| bytes.len() != POINTER_BYTES)?.pack())
}

fn read_label(bytes: &[u8]) -> Option<Vec<u8>> {
    let label = Label::decode(bytes).ok()?;
    let written = label.encode().expect("what was read fits");
    // Version 1 is read too, and written as what is new; what is behind the configuration is nothing.
    let same = written.iter().zip(bytes).take_while(|(written, read)| written == read).count();
    Some(if bytes[11] == 1 || same >= end_of_label(bytes) { bytes.to_vec() } else { written })
}

fn read_uberblock(bytes: &[u8]) -> Option<Vec<u8>> {
    let bytes: &[u8; UBERBLOCK_BYTES] = bytes.try_into().ok()?;
    Uberblock::decode(bytes).ok().map(|uberblock| uberblock.encode())
}

fn read_root(bytes: &[u8]) -> Option<Vec<u8>> {
    let root = PoolRoot::decode(bytes).ok()?;
    // Older versions are read too, and written as what is new.
    Some(if bytes[11] < 4 { bytes.to_vec() } else { root.encode() })
}

fn read_node(bytes: &[u8]) -> Option<Vec<u8>> {
    decode_node(bytes).ok().map(|node| encode_node(&node))
}

fn read_dataset(bytes: &[u8]) -> Option<Vec<u8>> {
    let written = DatasetRecord::decode(bytes).ok()?.encode();
    // In older versions of the root there is less of it.
    Some(if written.len() > bytes.len() { bytes.to_vec() } else { written })
}

fn read_extent(bytes: &[u8]) -> Option<Vec<u8>> {
    let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let key = Key { object: number(0)?, tag: *bytes.get(8)?, index: number(9)? };
    let extent = Extent::decode(key, bytes.get(17..)?).ok()?;
    Some([&bytes[..17], &extent.encode()].concat())
}

fn read_object(bytes: &[u8]) -> Option<Vec<u8>> {
    ObjectRecord::decode(bytes).ok().map(|object| object.encode())
}

fn read_map(bytes: &[u8]) -> Option<Vec<u8>> {
    let bytes: &[u8; MAP_BYTES] = bytes.try_into().ok()?;
    MapBlock::decode(bytes).ok().map(|map| map.encode())
}

fn read_scrub(bytes: &[u8]) -> Option<Vec<u8>> {
    ScrubRecord::decode(bytes).ok().map(|scrub| scrub.encode())
}

fn read_head(bytes: &[u8]) -> Option<Vec<u8>> {
    let bytes: &[u8; LOG_HEAD_BYTES] = bytes.try_into().ok()?;
    // What is between its fields is not looked at.
    LogHead::decode(bytes).map(|_| bytes.to_vec())
}

fn read_entries(bytes: &[u8]) -> Option<Vec<u8>> {
    // Numbers that an entry does not use are not looked at.
    LogEntry::decode_all(bytes).map(|_| bytes.to_vec())
}

fn read_name(bytes: &[u8]) -> Option<Vec<u8>> {
    // What is behind the path is not looked at.
    NameSlot::decode(bytes).ok().map(|_| bytes.to_vec())
}

/// Where the checksum of a label's configuration ends.
fn end_of_label(bytes: &[u8]) -> usize {
    let body =
        bytes.get(12..16).map_or(0, |len| u32::from_be_bytes([len[0], len[1], len[2], len[3]]) as usize);
    16_usize.saturating_add(body).saturating_add(Checksum::BYTES)
}

fn sum_label(bytes: &mut [u8]) {
    let end = end_of_label(bytes).saturating_sub(Checksum::BYTES);
    if end + Checksum::BYTES <= bytes.len() {
        let checksum = Checksum::of(ChecksumKind::Blake3, &bytes[..end]);
        bytes[end..end + Checksum::BYTES].copy_from_slice(checksum.bytes());
    }
}

fn sum_uberblock(bytes: &mut [u8]) {
    sum_end(bytes, ChecksumKind::Blake3);
}

fn sum_head(bytes: &mut [u8]) {
    sum_end(bytes, ChecksumKind::Xxh3);
}

fn sum_end(bytes: &mut [u8], kind: ChecksumKind) {
    if let Some(end) = bytes.len().checked_sub(Checksum::BYTES) {
        let checksum = Checksum::of(kind, &bytes[..end]);
        bytes[end..].copy_from_slice(checksum.bytes());
    }
}
