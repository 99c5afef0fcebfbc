//! Two mounts show one filesystem: what one has done the other sees at once.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use crate::cluster::{Mount, with_mounts};
use crate::posix::Mapping;

/// Rounds of each test. Nothing in them waits: a stale answer fails the round.
const ROUNDS: u32 = 60;

/// Runs rounds, each time with the mounts changed over.
fn rounds(test: impl Fn(u32, &Mount, &Mount)) {
    with_mounts(|one, other| {
        for round in 0..ROUNDS {
            let (here, there) = if round % 2 == 0 { (one, other) } else { (other, one) };
            test(round, here, there);
        }
    });
}

#[test]
fn a_new_file_is_there_also_where_it_was_missed() {
    rounds(|round, here, there| {
        let name = format!("file{}", round % 3);
        assert!(!there.path(&name).exists());
        fs::write(here.path(&name), round.to_string()).unwrap();
        assert_eq!(fs::read(there.path(&name)).unwrap(), round.to_string().as_bytes());
        assert!(
            fs::read_dir(there.path("")).unwrap().any(|entry| entry.unwrap().file_name() == name.as_str())
        );
        fs::remove_file(here.path(&name)).unwrap();
        assert!(!there.path(&name).exists());
    });
}

#[test]
fn what_was_appended_or_overwritten_is_read() {
    rounds(|round, here, there| {
        let append = |mount: &Mount, text: &str| {
            let mut file = OpenOptions::new().append(true).create(true).open(mount.path("log")).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        fs::write(here.path("log"), format!("{round} ")).unwrap();
        append(there, "there ");
        append(here, "here");
        let whole = format!("{round} there here");
        assert_eq!(fs::metadata(there.path("log")).unwrap().len(), whole.len() as u64);
        assert_eq!(fs::read_to_string(there.path("log")).unwrap(), whole);
        fs::write(there.path("log"), format!("{round} over")).unwrap();
        assert_eq!(fs::read_to_string(here.path("log")).unwrap(), format!("{round} over"));
    });
}

#[test]
fn open_files_show_each_write() {
    rounds(|round, here, there| {
        fs::write(here.path("open"), b"0000000000").unwrap();
        let reader = File::open(there.path("open")).unwrap();
        let writer = OpenOptions::new().write(true).open(here.path("open")).unwrap();
        for step in 0..3 {
            let text = format!("{round:05}{step:05}");
            writer.write_all_at(text.as_bytes(), 0).unwrap();
            let mut read = [0; 10];
            reader.read_exact_at(&mut read, 0).unwrap();
            assert_eq!(std::str::from_utf8(&read), Ok(text.as_str()));
        }
    });
}

#[test]
fn who_has_it_open_finds_what_another_mount_puts_where_nothing_was() {
    rounds(|round, here, there| {
        let name = format!("grows{round}");
        fs::write(here.path(&name), b"").unwrap();
        let reader = File::open(there.path(&name)).unwrap();
        assert_eq!(reader.read_at(&mut [0; 10], 0).unwrap(), 0);
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n % 249) as u8 + 1).collect();
        fs::write(here.path(&name), &bytes).unwrap();
        let mut seen = vec![0; bytes.len()];
        reader.read_exact_at(&mut seen, 0).unwrap();
        assert!(seen == bytes);
    });
}

#[test]
fn a_time_that_is_set_stays_whoever_has_written_before() {
    rounds(|round, here, there| {
        let name = format!("timed{round}");
        fs::write(here.path(&name), b"data").unwrap();
        let setter = if round % 4 < 2 { here } else { there };
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 + u64::from(round));
        let opened = OpenOptions::new().write(true).open(setter.path(&name)).unwrap();
        opened.set_modified(time).unwrap();
        let writer = OpenOptions::new().write(true).open(here.path(&name)).unwrap();
        writer.sync_all().unwrap();
        for mount in [here, there] {
            assert_eq!(fs::metadata(mount.path(&name)).unwrap().modified().unwrap(), time);
        }
    });
}

#[test]
fn a_directory_that_another_mount_removes_while_it_is_open_is_empty() {
    with_mounts(|one, other| {
        fs::create_dir(one.path("open")).unwrap();
        let listing = fs::read_dir(other.path("open")).unwrap();
        let open = File::open(other.path("open")).unwrap();
        fs::remove_dir(one.path("open")).unwrap();
        assert_eq!(open.metadata().unwrap().nlink(), 0);
        assert_eq!(listing.map(|entry| entry.map(|_| ())).collect::<Vec<_>>().len(), 0);
    });
}

#[test]
fn large_files_are_whole_on_the_other_side() {
    with_mounts(|one, other| {
        for round in 0..6_u8 {
            let bytes: Vec<u8> = (0..500_000_u32).map(|n| (n >> 9) as u8 ^ round).collect();
            fs::write(one.path("large"), &bytes).unwrap();
            assert!(fs::read(other.path("large")).unwrap() == bytes);
            let file = OpenOptions::new().write(true).open(other.path("large")).unwrap();
            file.write_all_at(b"in the middle", 250_000).unwrap();
            let there = fs::read(one.path("large")).unwrap();
            assert_eq!(&there[250_000..250_013], b"in the middle");
        }
    });
}

#[test]
fn renames_links_and_modes_are_seen() {
    rounds(|round, here, there| {
        fs::write(here.path("old"), b"old").unwrap();
        fs::write(here.path("new"), round.to_string()).unwrap();
        assert!(there.path("new").exists() && fs::read(there.path("old")).unwrap() == b"old");
        fs::rename(here.path("new"), here.path("old")).unwrap();
        assert_eq!(fs::read_to_string(there.path("old")).unwrap(), round.to_string());
        assert!(!there.path("new").exists());
        let mode = 0o600 + round % 64;
        fs::set_permissions(there.path("old"), fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(fs::metadata(here.path("old")).unwrap().permissions().mode() & 0o777, mode);
        fs::hard_link(there.path("old"), there.path("link")).unwrap();
        assert_eq!(fs::read_to_string(here.path("link")).unwrap(), round.to_string());
        fs::remove_file(here.path("link")).unwrap();
        assert!(!there.path("link").exists());
    });
}

#[test]
fn directories_of_one_mount_are_used_by_the_other() {
    rounds(|round, here, there| {
        let name = format!("dir{}", round % 2);
        fs::create_dir(here.path(&name)).unwrap();
        let inner = format!("{name}/inner");
        // The mount that made the directory knows its names without asking, until the other has changed them.
        fs::write(there.path(&inner), b"there").unwrap();
        assert_eq!(fs::read(here.path(&inner)).unwrap(), b"there");
        fs::remove_file(here.path(&inner)).unwrap();
        assert!(!there.path(&inner).exists());
        fs::write(here.path(&inner), b"here").unwrap();
        fs::rename(there.path(&inner), there.path(&format!("{name}/moved"))).unwrap();
        assert!(!here.path(&inner).exists());
        fs::remove_file(here.path(&format!("{name}/moved"))).unwrap();
        fs::remove_dir(there.path(&name)).unwrap();
        assert!(!here.path(&name).exists());
    });
}

#[test]
fn mappings_see_what_the_other_mount_wrote() {
    rounds(|round, here, there| {
        fs::write(here.path("mapped"), [b'.'; 4096]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(there.path("mapped")).unwrap();
        let mut map = Mapping::of(&file, 4096);
        assert_eq!(map.bytes()[0], b'.');
        let text = format!("{round:05}");
        let writer = OpenOptions::new().write(true).open(here.path("mapped")).unwrap();
        writer.write_all_at(text.as_bytes(), 10).unwrap();
        assert_eq!(&map.bytes()[10..15], text.as_bytes());
        map.bytes()[20..25].copy_from_slice(text.as_bytes());
        map.sync();
        assert_eq!(&fs::read(here.path("mapped")).unwrap()[10..25], format!("{text}.....{text}").as_bytes());
    });
}

#[test]
fn an_unlinked_file_lives_while_the_other_mount_has_it_open() {
    rounds(|round, here, there| {
        fs::write(here.path("held"), round.to_string()).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(there.path("held")).unwrap();
        fs::remove_file(here.path("held")).unwrap();
        file.write_all_at(b"still", 0).unwrap();
        let mut read = [0; 5];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"still");
        assert!(!there.path("held").exists());
    });
}

#[test]
fn changes_in_one_directory_from_both_sides_do_not_wait_for_each_other() {
    with_mounts(|one, other| {
        std::thread::scope(|scope| {
            for (mount, who) in [(one, "one"), (other, "other"), (one, "uno"), (other, "altro")] {
                scope.spawn(move || {
                    for n in 0..100 {
                        let path = mount.path(&format!("{who}{n}"));
                        fs::write(&path, who).unwrap();
                        fs::rename(&path, mount.path(&format!("{who}-common"))).unwrap();
                        assert!(fs::read_dir(mount.path("")).unwrap().count() >= 1);
                    }
                });
            }
        });
        for who in ["one", "other", "uno", "altro"] {
            assert_eq!(fs::read_to_string(one.path(&format!("{who}-common"))).unwrap(), who);
        }
    });
}

#[test]
fn appends_of_both_mounts_are_all_there() {
    with_mounts(|one, other| {
        std::thread::scope(|scope| {
            for (mount, who) in [(one, "a"), (other, "b"), (one, "c"), (other, "d")] {
                scope.spawn(move || {
                    let mut file =
                        OpenOptions::new().append(true).create(true).open(mount.path("log")).unwrap();
                    for n in 0..60 {
                        file.write_all(format!("{who}{n:03}\n").as_bytes()).unwrap();
                    }
                });
            }
        });
        let log = fs::read_to_string(other.path("log")).unwrap();
        assert_eq!(log.lines().count(), 240);
        for who in ["a", "b", "c", "d"] {
            let mine: Vec<_> = log.lines().filter(|line| line.starts_with(who)).collect();
            let wanted: Vec<_> = (0..60).map(|n| format!("{who}{n:03}")).collect();
            assert_eq!(mine, wanted);
        }
    });
}

#[test]
fn locks_hold_against_the_other_mount() {
    use nix::fcntl::{Flock, FlockArg};
    with_mounts(|one, other| {
        fs::write(one.path("locked"), b"").unwrap();
        let open =
            |mount: &Mount| OpenOptions::new().read(true).write(true).open(mount.path("locked")).unwrap();
        let held = Flock::lock(open(one), FlockArg::LockExclusive).unwrap();
        assert!(Flock::lock(open(other), FlockArg::LockExclusiveNonblock).is_err());
        let waits = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| Flock::lock(open(other), FlockArg::LockExclusive).is_ok());
            drop(held);
            waiter.join().unwrap()
        });
        assert!(waits);
        let status = std::process::Command::new("flock")
            .args(["-w", "1"])
            .arg(other.path("locked"))
            .args(["true"])
            .status();
        if let Ok(status) = status {
            assert!(status.success(), "the lock is free again");
        }
        let held = Flock::lock(open(one), FlockArg::LockExclusive).unwrap();
        let gave_up = std::process::Command::new("flock")
            .args(["-w", "1"])
            .arg(other.path("locked"))
            .arg("true")
            .status();
        if let Ok(gave_up) = gave_up {
            assert_eq!(gave_up.code(), Some(1), "who waits for a lock can give up");
        }
        drop(held);
    });
}

#[test]
fn a_listing_that_begins_anew_shows_what_another_mount_has_made() {
    with_mounts(|one, other| {
        fs::create_dir(one.path("dir")).unwrap();
        let mut dir = nix::dir::Dir::open(
            &other.path("dir"),
            nix::fcntl::OFlag::O_RDONLY,
            nix::sys::stat::Mode::empty(),
        )
        .unwrap();
        let parent = fs::metadata(one.path("")).unwrap().ino();
        let mut list = || {
            let entries: Vec<_> = dir.iter().map(Result::unwrap).collect();
            let up = entries.iter().find(|entry| entry.file_name() == c"..").unwrap().ino();
            assert_eq!(up, parent);
            entries.len()
        };
        assert_eq!(list(), 2);
        fs::write(one.path("dir/new"), b"").unwrap();
        assert_eq!(list(), 3);
    });
}

#[test]
fn pages_show_what_was_written_while_nobody_read_them() {
    rounds(|_, here, there| {
        fs::write(here.path("paged"), [0; 8192]).unwrap();
        assert_eq!(fs::read(here.path("paged")).unwrap(), [0; 8192]);
        let writer = OpenOptions::new().write(true).open(here.path("paged")).unwrap();
        for n in 1..=4 {
            writer.write_all_at(&[n; 8192], 0).unwrap();
        }
        let reader = File::open(here.path("paged")).unwrap();
        let mut seen = [0; 8192];
        for n in 5..=8 {
            reader.read_exact_at(&mut seen, 0).unwrap();
            writer.write_all_at(&[n; 4096], 4096).unwrap();
            reader.read_exact_at(&mut seen, 0).unwrap();
            assert_eq!((seen[0], seen[4096]), (4, n));
        }
        drop(reader);
        for n in 9..=12 {
            writer.write_all_at(&[n; 8192], 0).unwrap();
        }
        assert_eq!(fs::read(here.path("paged")).unwrap(), [12; 8192]);
        assert_eq!(fs::read(there.path("paged")).unwrap(), [12; 8192]);
    });
}

#[test]
fn a_record_lock_of_who_made_the_file_goes_with_its_handle() {
    use nix::fcntl::{FcntlArg, fcntl};
    let whole = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    with_mounts(|one, other| {
        for n in 0..20 {
            let name = format!("made{n}");
            let made = OpenOptions::new().write(true).create_new(true).open(one.path(&name)).unwrap();
            fcntl(&made, FcntlArg::F_SETLK(&whole)).unwrap();
            let wanted = OpenOptions::new().write(true).open(other.path(&name)).unwrap();
            assert!(fcntl(&wanted, FcntlArg::F_SETLK(&whole)).is_err());
            drop(made);
            fcntl(&wanted, FcntlArg::F_SETLKW(&whole)).unwrap();
        }
    });
}

#[test]
fn attributes_are_not_what_they_were_because_an_extended_one_was_asked_for() {
    rounds(|round, here, there| {
        let name = format!("dir{round}");
        fs::create_dir(here.path(&name)).unwrap();
        for mode in [0o700, 0o711, 0o755] {
            fs::metadata(there.path(&name)).unwrap();
            fs::set_permissions(here.path(&name), fs::Permissions::from_mode(mode)).unwrap();
            let path = std::ffi::CString::new(there.path(&name).as_os_str().as_encoded_bytes()).unwrap();
            no_xattr(&path);
            let seen = fs::metadata(there.path(&name)).unwrap().permissions().mode();
            assert_eq!(seen & 0o7777, mode);
        }
    });
}

/// Asks for an extended attribute that is not there.
#[expect(unsafe_code, reason = "nix has no getxattr")]
fn no_xattr(path: &std::ffi::CStr) {
    // SAFETY: both strings end with a NUL, and nothing is written to a buffer of no bytes.
    let got = unsafe { libc::getxattr(path.as_ptr(), c"user.none".as_ptr(), std::ptr::null_mut(), 0) };
    assert_eq!(got, -1);
}
