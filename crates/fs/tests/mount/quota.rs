//! Quotas: what is refused, to whom, and that what is given back may be used again.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_fs::client::control::{self, Quota, SetProject};
use kiln_fs::core::quota::{Account, QuotaKind, SetLimits, SetQuota};

use crate::cluster::{Mount, with_mount, with_mounts};

const USER: u32 = 4711;
const GROUP: u32 = 4712;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Units of space in a MiB.
const MIB_BLOCKS: u64 = 2048;

fn set<T: serde::Serialize>(path: &Path, name: &str, value: &T) -> io::Result<()> {
    let (path, name) = (CString::new(path.as_os_str().as_bytes())?, CString::new(name)?);
    let value = control::encode(value);
    // SAFETY: both names end with a NUL, and the value's pointer and length are those of a slice.
    #[expect(unsafe_code, reason = "lsetxattr(2) has no wrapper in nix")]
    let done =
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn get(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let (path, name) = (CString::new(path.as_os_str().as_bytes())?, CString::new(name)?);
    let mut value = vec![0_u8; 4096];
    // SAFETY: both names end with a NUL, and the value's pointer and length are those of a slice that nobody else has.
    #[expect(unsafe_code, reason = "lgetxattr(2) has no wrapper in nix")]
    let len =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(len).map_err(|_| io::Error::last_os_error())?);
    Ok(value)
}

fn account(mount: &Mount, kind: QuotaKind, id: u32) -> Account {
    let value = get(&mount.path(""), &control::quota_of(kind, id)).expect("root sees everybody's");
    control::decode::<Quota>(&value).expect("a quota").account
}

/// Limits the blocks and inodes of somebody.
fn limit(mount: &Mount, kind: QuotaKind, id: u32, blocks: u64, inodes: u64) {
    let hard = |limit| SetLimits { soft: None, hard: Some(limit) };
    let limits = SetQuota::Limits { id, space: hard(blocks), inodes: hard(inodes) };
    set(&mount.path(""), control::QUOTA, &(kind, limits)).expect("root sets limits");
}

/// A directory that [`USER`] may write to.
fn home(mount: &Mount) -> PathBuf {
    let home = mount.path("home");
    fs::create_dir(&home).expect("a new directory");
    chown(&home, Some(USER), Some(GROUP)).expect("root gives it away");
    home
}

/// Does something as the user, on a thread of its own: the kernel counts each thread's ids for itself.
fn as_user<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let run = || {
        // Only this thread; setgid(2) of libc would change all.
        for (call, id) in [(libc::SYS_setgid, GROUP), (libc::SYS_setuid, USER)] {
            // SAFETY: these take a number and touch no memory.
            #[expect(unsafe_code, reason = "libc's wrappers change every thread of the process")]
            let done = unsafe { libc::syscall(call, id) };
            assert_eq!(done, 0);
        }
        act()
    };
    std::thread::scope(|scope| scope.spawn(run).join().expect("the user's part goes well"))
}

fn errno<T: std::fmt::Debug>(outcome: io::Result<T>) -> i32 {
    outcome.expect_err("it is refused").raw_os_error().expect("by the system")
}

/// Writes pieces of a file until that is refused; how much was taken.
fn fill(path: &Path, piece: usize, at_most: usize) -> usize {
    let file = File::create(path).expect("a new file");
    let bytes = vec![7; piece];
    let mut taken = 0;
    while taken < at_most {
        match file.write_all_at(&bytes, taken as u64) {
            Ok(()) => taken += piece,
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EDQUOT));
                break;
            }
        }
    }
    file.sync_all().expect("what was taken is stored");
    taken
}

#[test]
fn nobody_makes_more_files_than_he_may_until_some_are_gone() {
    with_mount(|mount| {
        let home = home(mount);
        limit(mount, QuotaKind::User, USER, 0, 4);
        as_user(|| {
            for n in 0..3 {
                File::create(home.join(format!("{n}"))).unwrap();
            }
            assert_eq!(errno(File::create(home.join("3"))), libc::EDQUOT);
            assert_eq!(errno(fs::create_dir(home.join("d"))), libc::EDQUOT);
            assert_eq!(errno(std::os::unix::fs::symlink("x", home.join("l"))), libc::EDQUOT);
            fs::hard_link(home.join("0"), home.join("again")).expect("a name is no inode");
            fs::remove_file(home.join("1")).unwrap();
        });
        // That the file is closed is told a little later, and it goes then.
        while account(mount, QuotaKind::User, USER).inodes.used > 3 {
            std::thread::yield_now();
        }
        as_user(|| File::create(home.join("3"))).expect("there is room again");
        File::create(home.join("roots")).expect("root is not bound");
    });
}

#[test]
fn nobody_stores_more_than_he_may_until_some_is_gone() {
    with_mount(|mount| {
        let home = home(mount);
        limit(mount, QuotaKind::User, USER, 4 * MIB_BLOCKS, 0);
        for (name, piece) in [("big", 256 * KIB), ("small", 3000)] {
            let path = home.join(name);
            let taken = as_user(|| fill(&path, piece, 8 * MIB));
            assert!((3 * MIB..=4 * MIB).contains(&taken), "{name}: {taken}");
            let used = account(mount, QuotaKind::User, USER).space.used;
            assert!((3 * MIB_BLOCKS..=4 * MIB_BLOCKS + 64).contains(&used), "{name}: {used} blocks");
            let read = fs::read(&path).unwrap();
            assert!(read.len() == taken && read.iter().all(|byte| *byte == 7), "{name}");
            as_user(|| {
                let file = OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all_at(&[8; 100], 0).expect("it takes no more space");
                file.set_len(taken as u64 / 2).unwrap();
                file.write_all_at(&vec![9; MIB], taken as u64 / 2).expect("there is room again");
            });
            fs::remove_file(&path).unwrap();
            while account(mount, QuotaKind::User, USER).space.used > 16 {
                std::thread::yield_now();
            }
        }
    });
}

#[test]
fn many_small_files_are_held_against_the_limit_before_they_are_written_back() {
    with_mount(|mount| {
        let home = home(mount);
        limit(mount, QuotaKind::Group, GROUP, MIB_BLOCKS, 0);
        let taken = as_user(|| {
            let write = |n: &usize| fs::write(home.join(n.to_string()), [1; 8 * KIB]);
            (0..1000).map(|n| (n, write(&n))).find(|(_, written)| written.is_err())
        });
        let (taken, written) = taken.expect("it ends");
        assert_eq!(errno(written), libc::EDQUOT);
        assert!((100..=128).contains(&taken), "{taken} files of 8 KiB in 1 MiB");
        assert!(account(mount, QuotaKind::Group, GROUP).space.used <= MIB_BLOCKS + 64);
    });
}

#[test]
fn who_writes_from_two_mounts_gets_no_more_than_the_slack() {
    with_mounts(|one, other| {
        home(one);
        limit(one, QuotaKind::User, USER, 8 * MIB_BLOCKS, 0);
        let write = |mount: &Mount, name: &str| {
            let path = mount.path("home").join(name);
            as_user(|| fill(&path, 64 * KIB, 16 * MIB))
        };
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| write(one, "first"));
            let second = scope.spawn(|| write(other, "second"));
            (first.join().unwrap(), second.join().unwrap())
        });
        let taken = first + second;
        // As docs/filesystem.md says: one request of each thread that writes may come on top.
        let slack = 2 * MIB;
        assert!((7 * MIB..=8 * MIB + slack).contains(&taken), "{first} and {second}");
        let used = account(one, QuotaKind::User, USER).space.used;
        assert!(used >= taken as u64 / 512, "{used}");
    });
}

#[test]
fn usage_follows_the_data_and_its_owner() {
    with_mount(|mount| {
        let (used, path) = (|id| account(mount, QuotaKind::User, id), mount.path("f"));
        // The name takes space of the directory's owner.
        File::create(&path).unwrap();
        let before = used(0);
        fs::write(&path, vec![1; MIB]).unwrap();
        assert!(fs::metadata(&path).unwrap().blocks() >= MIB_BLOCKS, "du sees what is held back");
        let stored = used(0).space.used - before.space.used;
        assert!((MIB_BLOCKS..=MIB_BLOCKS + 64).contains(&stored), "{stored}");
        assert_eq!(fs::metadata(&path).unwrap().blocks(), stored, "and what is stored");
        chown(&path, Some(USER), None).unwrap();
        assert_eq!((used(0).space, used(0).inodes.used), (before.space, before.inodes.used - 1));
        assert_eq!((used(USER).space.used, used(USER).inodes.used), (stored, 1));
        OpenOptions::new().write(true).open(&path).unwrap().set_len(256 * KIB as u64).unwrap();
        let cut = used(USER).space.used;
        assert!((512..=512 + 64).contains(&cut), "{cut}");
        fs::remove_file(&path).unwrap();
        while used(USER) != Account::default() {
            std::thread::yield_now();
        }
    });
}

#[test]
fn projects_are_inherited_and_limited_and_root_alone_sets_them() {
    with_mount(|mount| {
        let home = home(mount);
        let of = |id| SetProject { id: Some(id), inherit: Some(true) };
        set(&home, control::PROJECT, &of(9)).unwrap();
        limit(mount, QuotaKind::Project, 9, 0, 3);
        as_user(|| {
            fs::create_dir(home.join("a")).unwrap();
            File::create(home.join("a/b")).unwrap();
            assert_eq!(errno(File::create(home.join("a/c"))), libc::EDQUOT);
            assert_eq!(errno(set(&home.join("a"), control::PROJECT, &of(1))), libc::EPERM);
            let anyones = SetQuota::Grace { space_secs: Some(1), inode_secs: None };
            assert_eq!(errno(set(&home, control::QUOTA, &(QuotaKind::User, anyones))), libc::EPERM);
            assert!(get(&home, &control::quota_of(QuotaKind::User, USER)).is_ok(), "his own he sees");
            assert_eq!(errno(get(&home, &control::quota_of(QuotaKind::User, 0))), libc::EPERM);
        });
        let value = get(&home.join("a"), control::PROJECT).unwrap();
        assert_eq!(control::decode(&value), Some(control::Project { id: 9, inherit: true }));
    });
}

#[test]
fn other_programs_are_told_too() {
    with_mount(|mount| {
        let home = home(mount);
        limit(mount, QuotaKind::User, USER, MIB_BLOCKS, 0);
        let script = format!("exec 2>&1; cd {}; dd if=/dev/zero of=f bs=64k count=40", home.display());
        let mut command = Command::new("sh");
        std::os::unix::process::CommandExt::uid(&mut command, USER);
        std::os::unix::process::CommandExt::gid(&mut command, GROUP);
        let output = command.args(["-c", &script]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains("Disk quota exceeded"), "{said}");
        let len = fs::metadata(home.join("f")).unwrap().len() as usize;
        assert!((MIB - 128 * KIB..=MIB).contains(&len), "{len}");
    });
}
