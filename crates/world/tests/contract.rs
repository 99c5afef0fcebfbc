//! The contract of `Disk` and `File`, held by the real and the simulated disk alike.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use kiln_world::{Disk, Open, RealDisk, SYNCFS_ABOVE_FILES, SimDisk};

/// Runs `test` on both disks.
fn on_both(test: impl Fn(&dyn Disk)) {
    test(&SimDisk::new(1));
    let dir = tempfile::tempdir().expect("tempdir");
    test(&RealDisk::new(dir.path()).expect("disk"));
}

fn read_all(disk: &dyn Disk, path: &str) -> Vec<u8> {
    let file = disk.open(Path::new(path), Open::Existing).expect("open");
    let mut bytes = vec![0; file.len().expect("len") as usize];
    assert_eq!(file.read_at(&mut bytes, 0).expect("read"), bytes.len());
    bytes
}

fn names(disk: &dyn Disk, dir: &str) -> Vec<(String, bool)> {
    let entries = disk.list(Path::new(dir)).expect("list");
    entries.into_iter().map(|entry| (entry.name.into_string().expect("text"), entry.is_dir)).collect()
}

#[test]
fn opening_keeps_to_what_was_asked() {
    on_both(|disk| {
        let path = Path::new("f");
        let kind = |how| disk.open(path, how).err().map(|error| error.kind());
        assert_eq!(kind(Open::Existing), Some(ErrorKind::NotFound));
        assert_eq!(kind(Open::New), None);
        assert_eq!(kind(Open::New), Some(ErrorKind::AlreadyExists));
        assert_eq!(kind(Open::OrCreate), None);
        assert!(disk.open(Path::new("no/such/dir"), Open::OrCreate).is_err());
    });
}

#[test]
fn paths_that_leave_the_root_are_refused() {
    on_both(|disk| {
        for path in ["/etc/passwd", "../f", "a/../../f"] {
            let error = disk.open(Path::new(path), Open::OrCreate).err().expect("refused");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path}");
        }
    });
}

#[test]
fn parts_are_written_one_after_the_other_wherever_it_is_asked() {
    on_both(|disk| {
        let file = disk.open(Path::new("f"), Open::New).expect("open");
        file.write_all_at(&[b"", b"cd", b"", b"e"], 2).expect("write");
        assert_eq!(read_all(disk, "f"), b"\0\0cde");
        file.write_all_at(&[b"ab"], 0).expect("write");
        assert_eq!(read_all(disk, "f"), b"abcde");
        file.write_all_at(&[], 0).expect("nothing to write");
        let many = vec![&b"xy"[..]; 3000]; // more than one pwritev takes
        file.write_all_at(&many, 1).expect("write");
        assert_eq!(file.len().expect("len"), 6001);
        assert_eq!(read_all(disk, "f"), ["a", &"xy".repeat(3000)].concat().into_bytes());
    });
}

#[test]
fn reads_end_at_the_end_of_the_file() {
    on_both(|disk| {
        let file = disk.open(Path::new("f"), Open::New).expect("open");
        assert!(file.is_empty().expect("len"));
        file.write_all_at(&[b"abc"], 0).expect("write");
        let mut buf = [9; 8];
        assert_eq!(file.read_at(&mut buf, 1).expect("read"), 2);
        assert_eq!(&buf[..3], b"bc\x09");
        assert_eq!(file.read_at(&mut buf, 3).expect("read"), 0);
        assert_eq!(file.read_at(&mut buf, 99).expect("read"), 0);
    });
}

#[test]
fn a_file_is_cut_and_extended_with_zeros_and_space_set_aside_has_no_length() {
    on_both(|disk| {
        let file = disk.open(Path::new("f"), Open::New).expect("open");
        file.write_all_at(&[b"abc"], 0).expect("write");
        file.set_len(1).expect("cut");
        file.set_len(3).expect("extend");
        file.reserve(1 << 20).expect("reserve");
        assert_eq!(read_all(disk, "f"), b"a\0\0");
    });
}

#[test]
fn directories_are_made_listed_and_removed() {
    on_both(|disk| {
        disk.create_dir_all(Path::new("a/b")).expect("create");
        disk.create_dir_all(Path::new("a/b")).expect("again");
        disk.open(Path::new("a/z"), Open::New).expect("open");
        disk.open(Path::new("a/c"), Open::New).expect("open");
        let expected = [("b".to_owned(), true), ("c".to_owned(), false), ("z".to_owned(), false)];
        assert_eq!(names(disk, "a"), expected);
        assert_eq!(names(disk, ""), [("a".to_owned(), true)]);
        assert!(names(disk, "nowhere").is_empty());
        disk.sync_dir(Path::new("a")).expect("sync");
        disk.sync_dir(Path::new("")).expect("the root");
        disk.remove_dir_all(Path::new("a")).expect("remove");
        assert!(names(disk, "").is_empty());
        let missing = disk.remove_dir_all(Path::new("a")).expect_err("gone");
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_rename_replaces_and_a_removed_file_stays_readable_where_it_is_open() {
    on_both(|disk| {
        let old = disk.open(Path::new("old"), Open::New).expect("open");
        old.write_all_at(&[b"old"], 0).expect("write");
        let new = disk.open(Path::new("new"), Open::New).expect("open");
        new.write_all_at(&[b"new"], 0).expect("write");
        disk.rename(Path::new("new"), Path::new("old")).expect("rename");
        assert_eq!(read_all(disk, "old"), b"new");
        disk.remove(Path::new("old")).expect("remove");
        assert!(names(disk, "").is_empty());
        let mut buf = [0; 3];
        new.read_at(&mut buf, 0).expect("read");
        assert_eq!(&buf, b"new");
        assert_eq!(disk.remove(Path::new("old")).expect_err("gone").kind(), ErrorKind::NotFound);
    });
}

#[test]
fn many_files_are_synced_as_well_as_few() {
    on_both(|disk| {
        for count in [1, SYNCFS_ABOVE_FILES + 1] {
            let open = |number| disk.open(Path::new(&format!("{count}-{number}")), Open::New).expect("open");
            let files: Vec<Arc<_>> = (0..count).map(open).collect();
            for file in &files {
                file.write_all_at(&[b"x"], 0).expect("write");
            }
            disk.sync_files(&files).expect("sync");
            disk.sync_all().expect("sync");
        }
    });
}

#[test]
fn a_disk_says_how_much_it_holds() {
    on_both(|disk| {
        let space = disk.space().expect("space");
        assert!(space.total_bytes >= space.free_bytes && space.free_bytes >= space.available_bytes);
        assert!(space.available_bytes > 0, "the tests have a disk that is not full");
    });
}
