//! What POSIX and Linux promise programs, on one mount.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use nix::fcntl::{AtFlags, FallocateFlags, OFlag, RenameFlags, copy_file_range, fallocate, renameat2};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Whence, lseek};

use crate::cluster::with_mount;

fn errno<T>(outcome: io::Result<T>) -> i32 {
    outcome.err().and_then(|error| error.raw_os_error()).expect("it fails")
}

fn nix_errno<T>(outcome: nix::Result<T>) -> i32 {
    outcome.err().expect("it fails") as i32
}

fn open_rw(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn read_at(file: &File, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let got = file.read_at(&mut bytes, offset).unwrap();
    bytes.truncate(got);
    bytes
}

#[test]
fn files_hold_what_is_written_to_them() {
    with_mount(|mount| {
        let path = mount.path("a");
        let file = open_rw(&path);
        file.write_all_at(&[b'x'; 100], 0).unwrap();
        file.write_all_at(b"y", 1000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1001);
        assert_eq!(read_at(&file, 995, 10), [0, 0, 0, 0, 0, b'y']);
        file.set_len(50).unwrap();
        file.set_len(200).unwrap();
        assert_eq!(read_at(&file, 0, 300), [vec![b'x'; 50], vec![0; 150]].concat());
        // Beyond the part that is on the MDT, over the stripes of both OSTs.
        let big: Vec<u8> = (0..700_000_u32).map(|n| (n % 251) as u8).collect();
        file.write_all_at(&big, 33).unwrap();
        file.sync_all().unwrap();
        assert_eq!(&fs::read(&path).unwrap()[33..], big);
        drop(OpenOptions::new().write(true).truncate(true).open(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    });
}

#[test]
fn appends_go_to_the_end() {
    with_mount(|mount| {
        let path = mount.path("log");
        let mut one = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let mut other = OpenOptions::new().append(true).open(&path).unwrap();
        for _ in 0..10 {
            one.write_all(b"one ").unwrap();
            other.write_all(b"other ").unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"one other ".repeat(10));
    });
}

#[test]
fn a_reader_and_a_writer_of_one_mount_see_the_same_bytes() {
    with_mount(|mount| {
        let path = mount.path("shared");
        fs::write(&path, b"first").unwrap();
        let (reader, writer) = (File::open(&path).unwrap(), open_rw(&path));
        for round in 0..50_u32 {
            let text = format!("{round:05}");
            writer.write_all_at(text.as_bytes(), 0).unwrap();
            assert_eq!(read_at(&reader, 0, 5), text.as_bytes());
        }
    });
}

#[test]
fn mappings_read_and_write_the_file() {
    with_mount(|mount| {
        let path = mount.path("mapped");
        fs::write(&path, vec![b'.'; 8192]).unwrap();
        let file = open_rw(&path);
        let mut map = Mapping::of(&file, 8192);
        map.bytes()[4096..4101].copy_from_slice(b"HELLO");
        map.sync();
        assert_eq!(read_at(&file, 4096, 5), b"HELLO");
        file.write_all_at(b"again", 0).unwrap();
        assert_eq!(&map.bytes()[..5], b"again");
        drop(map);
        drop(file);
        assert_eq!(&fs::read(&path).unwrap()[4096..4102], b"HELLO.");
    });
}

#[test]
fn names_are_made_and_refused_as_posix_says() {
    with_mount(|mount| {
        let at = |name: &str| mount.path(name);
        fs::write(at("a"), b"a").unwrap();
        assert_eq!(errno(OpenOptions::new().write(true).create_new(true).open(at("a"))), libc::EEXIST);
        assert_eq!(errno(File::open(at("none"))), libc::ENOENT);
        assert_eq!(errno(fs::create_dir(at("a"))), libc::EEXIST);
        assert_eq!(errno(File::open(at("a/b"))), libc::ENOTDIR);
        assert_eq!(errno(fs::write(at(&"n".repeat(256)), b"")), libc::ENAMETOOLONG);
        fs::write(at(&"n".repeat(255)), b"").unwrap();
        fs::hard_link(at("a"), at("b")).unwrap();
        assert_eq!(fs::metadata(at("a")).unwrap().nlink(), 2);
        fs::remove_file(at("a")).unwrap();
        assert_eq!(fs::metadata(at("b")).unwrap().nlink(), 1);
        symlink("b", at("s")).unwrap();
        assert_eq!(fs::read_link(at("s")).unwrap(), Path::new("b"));
        assert_eq!(fs::read(at("s")).unwrap(), b"a");
        mknod(&at("fifo"), SFlag::S_IFIFO, Mode::from_bits_truncate(0o600), 0).unwrap();
        assert!(fs::metadata(at("fifo")).unwrap().file_type().is_fifo());
        drop(std::os::unix::net::UnixListener::bind(at("sock")).unwrap());
        assert!(fs::metadata(at("sock")).unwrap().file_type().is_socket());
        assert_eq!(errno(fs::remove_dir(at("b"))), libc::ENOTDIR);
        assert_eq!(errno(fs::remove_file(at(""))), libc::EISDIR);
    });
}

#[test]
fn renames_in_all_their_cases() {
    with_mount(|mount| {
        let at = |name: &str| mount.path(name);
        let rename = |from: &str, to: &str, how| {
            renameat2(nix::fcntl::AT_FDCWD, &at(from), nix::fcntl::AT_FDCWD, &at(to), how)
        };
        fs::write(at("a"), b"a").unwrap();
        fs::write(at("b"), b"b").unwrap();
        fs::rename(at("a"), at("b")).unwrap();
        assert_eq!((fs::read(at("b")).unwrap(), at("a").exists()), (b"a".to_vec(), false));
        fs::create_dir(at("full")).unwrap();
        fs::rename(at("b"), at("full/b")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        assert_eq!(errno(fs::rename(at("empty"), at("full"))), libc::ENOTEMPTY);
        assert_eq!(errno(fs::rename(at("full"), at("full/in"))), libc::EINVAL);
        fs::write(at("file"), b"f").unwrap();
        assert_eq!(errno(fs::rename(at("file"), at("empty"))), libc::EISDIR);
        assert_eq!(errno(fs::rename(at("empty"), at("file"))), libc::ENOTDIR);
        assert_eq!(nix_errno(rename("file", "empty", RenameFlags::RENAME_NOREPLACE)), libc::EEXIST);
        rename("file", "full", RenameFlags::RENAME_EXCHANGE).unwrap();
        assert!(at("file").is_dir() && at("full").is_file());
        assert_eq!(fs::read(at("file/b")).unwrap(), b"a");
        fs::rename(at("file"), at("empty")).unwrap();
        assert_eq!(fs::metadata(at("")).unwrap().nlink(), 3, "the root has one directory");
    });
}

#[test]
fn an_unlinked_file_lives_while_it_is_open() {
    with_mount(|mount| {
        let path = mount.path("gone");
        let file = open_rw(&path);
        file.write_all_at(b"data", 0).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        file.write_all_at(b"more", 4).unwrap();
        file.sync_all().unwrap();
        assert_eq!(read_at(&file, 0, 100), b"datamore");
        assert!(!path.exists());
    });
}

#[test]
fn a_file_without_a_name_gets_one() {
    with_mount(|mount| {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_TMPFILE)
            .open(mount.path(""))
            .unwrap();
        file.write_all(b"unnamed").unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        let fd = format!("/proc/self/fd/{}", file.as_raw_fd());
        let cwd = nix::fcntl::AT_FDCWD;
        nix::unistd::linkat(cwd, fd.as_str(), cwd, &mount.path("named"), AtFlags::AT_SYMLINK_FOLLOW).unwrap();
        assert_eq!(fs::read(mount.path("named")).unwrap(), b"unnamed");
    });
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    with_mount(|mount| {
        let path = mount.path("timed");
        let file = open_rw(&path);
        file.write_all_at(b"x", 0).unwrap();
        let (atime, mtime) = (TimeSpec::new(123_456_789, 12_345_678), TimeSpec::new(-5, 7));
        utimensat(nix::fcntl::AT_FDCWD, &path, &atime, &mtime, UtimensatFlags::FollowSymlink).unwrap();
        file.sync_all().unwrap();
        let about = fs::metadata(&path).unwrap();
        assert_eq!((about.atime(), about.atime_nsec()), (123_456_789, 12_345_678));
        assert_eq!(
            (about.mtime(), about.mtime_nsec()),
            (-5, 7),
            "what was written before does not bring its own time"
        );
        fs::read(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().atime(), 123_456_789, "reading does not touch it");
    });
}

#[test]
fn set_id_bits_go_when_the_owner_changes_or_others_write() {
    with_mount(|mount| {
        let path = mount.path("setid");
        fs::write(&path, b"x").unwrap();
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
        assert_eq!(mode(), 0o6755);
        std::os::unix::fs::chown(&path, Some(1), Some(1)).unwrap();
        assert_eq!(mode(), 0o755);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
        let wrote = as_nobody(&format!("printf y >> {}", path.display()));
        assert!(wrote, "anybody may write");
        assert_eq!(mode(), 0o777);
    });
}

#[test]
fn permissions_and_acls_are_those_of_the_caller() {
    with_mount(|mount| {
        let dir = mount.path("private");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("secret"), b"s").unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        let look = format!("cat {}/secret", dir.display());
        assert!(!as_nobody(&look));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(as_nobody(&look));
        let sticky = mount.path("sticky");
        fs::create_dir(&sticky).unwrap();
        fs::set_permissions(&sticky, fs::Permissions::from_mode(0o1777)).unwrap();
        fs::write(sticky.join("mine"), b"m").unwrap();
        assert!(!as_nobody(&format!("rm -f {}/mine", sticky.display())));
        assert!(as_nobody(&format!("touch {0}/theirs && rm {0}/theirs", sticky.display())));
    });
}

#[test]
fn extended_attributes() {
    with_mount(|mount| {
        let path = mount.path("attributed");
        fs::write(&path, b"x").unwrap();
        let run = |command: &str| {
            let script = format!("python3 -c \"import os; p='{}'; {command}\"", path.display());
            std::process::Command::new("sh").args(["-c", &script]).status().unwrap().success()
        };
        assert!(run("os.setxattr(p,'user.a',b'v')"));
        assert!(run("assert os.getxattr(p,'user.a')==b'v' and os.listxattr(p)==['user.a']"));
        assert!(!run("os.setxattr(p,'user.a',b'w',os.XATTR_CREATE)"));
        assert!(run("os.setxattr(p,'user.a',b'w',os.XATTR_REPLACE)"));
        assert!(run("os.removexattr(p,'user.a')"));
        assert!(!run("os.getxattr(p,'user.a')"));
    });
}

#[test]
fn space_is_set_aside_punched_and_found() {
    with_mount(|mount| {
        let path = mount.path("spaced");
        let file = open_rw(&path);
        fallocate(&file, FallocateFlags::empty(), 0, 300_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 300_000);
        file.write_all_at(&[b'd'; 300_000], 0).unwrap();
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&file, punch, 65_536, 131_072).unwrap();
        assert_eq!(read_at(&file, 65_535, 3), [b'd', 0, 0]);
        assert_eq!(read_at(&file, 196_607, 2), [0, b'd']);
        fallocate(&file, FallocateFlags::FALLOC_FL_ZERO_RANGE, 0, 100).unwrap();
        assert_eq!(read_at(&file, 99, 2), [0, b'd']);
        file.sync_all().unwrap();
        assert_eq!(lseek(&file, 0, Whence::SeekHole).unwrap(), 65_536);
        assert_eq!(lseek(&file, 65_536, Whence::SeekData).unwrap(), 196_608);
        assert_eq!(nix_errno(lseek(&file, 400_000, Whence::SeekData)), libc::ENXIO);
        let copy = open_rw(&mount.path("copy"));
        let (mut from, mut to) = (100_000, 5);
        assert_eq!(copy_file_range(&file, Some(&mut from), &copy, Some(&mut to), 150_000).unwrap(), 150_000);
        assert_eq!(read_at(&copy, 5, 150_000), read_at(&file, 100_000, 150_000));
        assert_eq!(
            nix_errno(fallocate(&file, FallocateFlags::FALLOC_FL_COLLAPSE_RANGE, 0, 4096)),
            libc::EOPNOTSUPP
        );
    });
}

#[test]
fn direct_io_reads_what_was_written() {
    with_mount(|mount| {
        let path = mount.path("direct");
        let bytes: Vec<u8> = (0..1_u32 << 20).map(|n| (n >> 8) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        let mut file =
            OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECT.bits()).open(&path).unwrap();
        let mut aligned = vec![0; bytes.len()];
        file.read_exact(&mut aligned).unwrap();
        assert_eq!(aligned, bytes);
    });
}

#[test]
fn directories_list_every_name_once() {
    with_mount(|mount| {
        let dir = mount.path("many");
        fs::create_dir(&dir).unwrap();
        for n in 0..1500 {
            fs::write(dir.join(format!("file-{n}")), n.to_string()).unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 1500);
        let sizes =
            fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum::<u64>();
        assert_eq!(sizes, 10 + 90 * 2 + 900 * 3 + 500 * 4);
        // Names that go while the directory is read hide none that stay.
        let mut seen = 0;
        for entry in fs::read_dir(&dir).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
            seen += 1;
        }
        assert_eq!(seen, 1500);
        fs::remove_dir(&dir).unwrap();
    });
}

#[test]
fn statfs_tells_space_and_inodes() {
    with_mount(|mount| {
        fs::write(mount.path("x"), b"x").unwrap();
        let about = nix::sys::statvfs::statvfs(&mount.path("")).unwrap();
        assert!(about.blocks() > 0 && about.blocks_available() <= about.blocks());
        assert!(about.files() > 0);
        assert_eq!(about.name_max(), 255);
    });
}

/// Runs a shell command as a user without privileges.
fn as_nobody(command: &str) -> bool {
    use std::os::unix::process::CommandExt;
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", command]).uid(65_534).gid(65_534).stderr(std::process::Stdio::null());
    shell.status().unwrap().success()
}

/// A shared mapping of a file.
pub(crate) struct Mapping {
    address: std::ptr::NonNull<libc::c_void>,
    len: usize,
}

impl Mapping {
    pub(crate) fn of(file: &File, len: usize) -> Mapping {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap};
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let size = std::num::NonZeroUsize::new(len).unwrap();
        #[expect(unsafe_code, reason = "a mapping is what is tested")]
        // SAFETY: a new mapping at an address that the kernel chooses; it is unmapped by drop alone.
        let address = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, file, 0) }.unwrap();
        Mapping { address, len }
    }

    #[expect(unsafe_code, reason = "a mapping is what is tested")]
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is `len` bytes long, and lives as long as `self`; the test does not cut the file.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr().cast(), self.len) }
    }

    pub(crate) fn sync(&self) {
        #[expect(unsafe_code, reason = "a mapping is what is tested")]
        // SAFETY: the range is that of the mapping.
        unsafe { nix::sys::mman::msync(self.address, self.len, nix::sys::mman::MsFlags::MS_SYNC) }.unwrap();
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "a mapping is what is tested")]
        // SAFETY: nothing refers to the mapping any more.
        let _ = unsafe { nix::sys::mman::munmap(self.address, self.len) };
    }
}

#[test]
fn locks_of_an_open_file_description_go_with_it() {
    use nix::fcntl::{FcntlArg, fcntl};
    with_mount(|mount| {
        let path = mount.path("locked");
        let (one, other) = (open_rw(&path), open_rw(&path));
        let whole = libc::flock {
            l_type: libc::F_WRLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        fcntl(&one, FcntlArg::F_OFD_SETLK(&whole)).unwrap();
        assert_eq!(nix_errno(fcntl(&other, FcntlArg::F_OFD_SETLK(&whole))), libc::EAGAIN);
        drop(one);
        fcntl(&other, FcntlArg::F_OFD_SETLKW(&whole)).unwrap();
    });
}
