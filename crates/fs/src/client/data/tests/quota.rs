//! What owners may use, and what the MDS is told of it.

use super::*;

const MIB_BLOCKS: u64 = MIB / 512;

fn try_write(file: &FileData, offset: u64, len: u64) -> Result<(), Errno> {
    file.write_within_quota(offset, &pattern(len as usize, offset), Mode::Cached, false)
}

fn blocks(cluster: &Cluster) -> u64 {
    cluster.mds.get(INO).0.blocks
}

#[test]
fn a_quarter_of_what_is_left_is_held_back_and_the_rest_written_through_until_nothing_is_left() {
    let cluster = Cluster::new(2);
    let (mount, file) = file_on(&cluster, patient(), 0);
    cluster.mds.limit(Some(8 * MIB_BLOCKS));
    try_write(&file, 0, 2 * MIB).unwrap();
    assert_eq!((cluster.oss.events(), blocks(&cluster)), (vec![], 0), "a quarter is held back");
    let mut at = 2 * MIB;
    while try_write(&file, at, KIB64).is_ok() {
        at += KIB64;
        let unknown = at - blocks(&cluster) * 512;
        let left = 8 * MIB - blocks(&cluster) * 512;
        assert!(unknown <= left / 4 || unknown == 0, "{unknown} of {left} is held back");
    }
    assert_eq!((at, blocks(&cluster)), (8 * MIB, 8 * MIB_BLOCKS));
    assert_eq!(try_write(&file, at, 1), Err(Errno::EDQUOT));
    try_write(&file, 100, MIB).expect("what is there may be written anew");
    file.write(at, b"root", Mode::Cached, false).expect("who is exempt goes on");
    file.flush().unwrap();
    assert_eq!(mount.mount.debts.files(|_| true).len(), 0, "everything is told");
}

#[test]
fn what_other_files_of_the_owner_hold_back_is_told_before_anything_is_refused() {
    let cluster = Cluster::new(1);
    let (mount, file) = file_on(&cluster, patient(), 0);
    let other = Ino(6);
    let (attr, layout) = cluster.mds.make(other, 0, STRIPE_BYTES_MIN);
    let other = mount.file(other, &attr, layout, None);
    cluster.mds.limit(Some(4 * MIB_BLOCKS));
    // Again and again the same: it may be as much as it looks, and is not.
    for _ in 0..2 {
        other.write(0, &pattern(MIB as usize, 1), Mode::Cached, false).unwrap();
    }
    try_write(&file, 0, 3 * MIB).expect("there is as much");
    assert_eq!(blocks(&cluster), 3 * MIB_BLOCKS);
    assert_eq!(try_write(&file, 3 * MIB, KIB64), Err(Errno::EDQUOT));
    cluster.mds.limit(None);
    try_write(&file, 3 * MIB, MIB).expect("nothing is limited any more");
}

#[test]
fn small_appends_are_not_counted_by_the_page_each() {
    let cluster = Cluster::new(1);
    let (mount, file) = file_on(&cluster, patient(), 0);
    for n in 0..1000 {
        file.write(n * 10, &[1; 10], Mode::Cached, false).unwrap();
    }
    let changes = file.attr_changes().expect("it is held back");
    assert_eq!((changes.size, changes.blocks), (Some(10_000), 24));
    assert_eq!(mount.mount.debts.files(|_| true).len(), 1);
    file.flush().unwrap();
    assert_eq!((blocks(&cluster), file.attr_changes()), (24, None));
}

#[test]
fn space_that_is_given_back_is_told() {
    let cluster = Cluster::new(2);
    let (_mount, file) = file_on(&cluster, patient(), 0);
    file.write(0, &pattern(MIB as usize, 1), Mode::Cached, false).unwrap();
    file.flush().unwrap();
    assert_eq!(blocks(&cluster), MIB_BLOCKS);
    file.punch(0, MIB / 2, Mode::Cached).unwrap();
    file.flush().unwrap();
    assert_eq!(blocks(&cluster), MIB_BLOCKS / 2);
    let cut = 3 * MIB / 4;
    file.resize(cut, || Ok(cluster.mds.set_size(INO, cut))).unwrap();
    file.flush().unwrap();
    assert_eq!(blocks(&cluster), MIB_BLOCKS / 4);
}

#[test]
fn a_file_that_is_given_away_leaves_its_debt_to_the_new_owner() {
    let cluster = Cluster::new(1);
    let (mount, file) = file_on(&cluster, patient(), 0);
    file.write(0, &[1; 4096], Mode::Cached, false).unwrap();
    let attr = Attr { uid: 7, ..cluster.mds.get(INO).0 };
    file.set_size(&attr, None);
    let of = |uid| mount.mount.debts.files(|owner| owner.uid == uid).len();
    assert_eq!((of(0), of(7)), (0, 1));
    file.discard();
    assert_eq!(of(7), 0);
}
