"""Contents: open flags, mmap, holes, fallocate, copy_file_range, O_DIRECT, O_TMPFILE, unlinked open files, times."""

import errno
import mmap
import os
import signal
import stat
import time

from cases import as_user, case, cases_main, check, fails
from common import content, same
from syscalls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, fallocate, link_open_file

MIB = 1 << 20
PAGE = mmap.PAGESIZE
RW = os.O_RDWR | os.O_CREAT


def write(path, data=b"x"):
    with open(path, "wb") as file:
        file.write(data)


def read(path):
    with open(path, "rb") as file:
        return file.read()


class opened:
    """A descriptor for a block."""

    def __init__(self, path, flags=RW, mode=0o644):
        self.descriptor = os.open(path, flags, mode)

    def __enter__(self):
        return self.descriptor

    def __exit__(self, *_):
        os.close(self.descriptor)


# open flags


@case
def append_writes_at_the_end_whoever_wrote_before(d):
    with opened(d / "a", RW | os.O_APPEND) as one, opened(d / "a", RW | os.O_APPEND) as two:
        for n in range(50):
            os.write(one, b"one%03d." % n)
            os.write(two, b"two%03d." % n)
        os.lseek(one, 0, os.SEEK_SET)
        os.write(one, b"end")
    same(read(d / "a"), b"".join(b"one%03d.two%03d." % (n, n) for n in range(50)) + b"end", "the file")


@case
def pwrite_on_append_appends(d):
    write(d / "a", b"before")
    with opened(d / "a", os.O_WRONLY | os.O_APPEND) as file:
        os.pwrite(file, b"after", 0)
    same(read(d / "a"), b"beforeafter", "the file (pwrite(2), BUGS)")


@case
def processes_append_whole_records(d):
    PROCESSES, RECORDS = 4, 300
    write(d / "log", b"")
    children = [fork_to(append_records, d / "log", n, RECORDS) for n in range(PROCESSES)]
    for child in children:
        same(os.waitpid(child, 0)[1], 0, "exit status of a writer")
    records = read(d / "log").split(b"\n")[:-1]
    expected = sorted(record(process, n)[:-1] for process in range(PROCESSES) for n in range(RECORDS))
    same(sorted(records), expected, "records, whole and each once")


def record(process, n):
    return b"%d %d %s\n" % (process, n, b"r" * (n % 200))


def append_records(path, process, count):
    with opened(path, os.O_WRONLY | os.O_APPEND) as log:
        for n in range(count):
            os.write(log, record(process, n))


def fork_to(act, *arguments):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act(*arguments)
            status = 0
        finally:
            os._exit(status)
    return child


@case
def excl_fails_on_whatever_is_there(d):
    excl = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    os.close(os.open(d / "a", excl, 0o600))
    fails(errno.EEXIST, os.open, d / "a", excl)
    (d / "dir").mkdir()
    fails(errno.EEXIST, os.open, d / "dir", excl)
    os.symlink("nowhere", d / "dangling")
    fails(errno.EEXIST, os.open, d / "dangling", excl)
    fails(errno.ENOENT, os.stat, d / "nowhere")


@case
def trunc_empties(d):
    write(d / "a", b"something")
    with opened(d / "a", os.O_RDONLY) as reader, opened(d / "a", os.O_WRONLY | os.O_TRUNC) as writer:
        same((os.read(reader, 9), os.fstat(writer).st_size), (b"", 0), "what is there after O_TRUNC")
        os.write(writer, b"new")
        same(os.read(reader, 9), b"new", "what the reader sees")
    fails(errno.ENOENT, os.open, d / "none", os.O_WRONLY | os.O_TRUNC)


@case
def a_new_file_has_the_mode_it_was_asked_for(d):
    os.umask(0o027)
    with opened(d / "masked", RW, 0o666):
        same(stat.S_IMODE(os.stat(d / "masked").st_mode), 0o640, "mode under umask 027")
    # The mode counts for those who open it next.
    with opened(d / "none", RW | os.O_EXCL, 0) as file:
        os.write(file, b"writable all the same")
        same(os.pread(file, 8, 0), b"writable", "what was written")


@case
def access_modes_are_kept(d):
    write(d / "a", b"content")
    with opened(d / "a", os.O_RDONLY) as file:
        fails(errno.EBADF, os.write, file, b"x")
        fails(errno.EINVAL, os.ftruncate, file, 1)
        fails(errno.EBADF, fallocate, file, 0, 0, 10)
    with opened(d / "a", os.O_WRONLY) as file:
        fails(errno.EBADF, os.read, file, 1)
    with opened(d / "a", os.O_PATH) as file:
        fails(errno.EBADF, os.read, file, 1)
        same(os.fstat(file).st_size, 7, "fstat of O_PATH")


@case
def creating_through_a_dangling_link_makes_the_target(d):
    os.symlink("target", d / "link")
    write(d / "link", b"made")
    same(read(d / "target"), b"made", "the target")


@case
def directories_are_synced(d):
    write(d / "a")
    with opened(d, os.O_RDONLY) as directory, opened(d / "a", os.O_RDWR) as file:
        os.fsync(directory)
        os.fsync(file)
        os.fdatasync(file)


@case
def synced_writes_are_there_with_their_size_and_time(d):
    for flag, name in (os.O_SYNC, "sync"), (os.O_DSYNC, "dsync"):
        with opened(d / name, os.O_RDWR | os.O_CREAT | flag) as file:
            for at, data in (0, b"a" * 5000), (3000, b"b" * 10), (1 << 20, b"c" * 70_000), (1 << 20, b"d"), (200_000, b"e"):
                os.pwrite(file, data, at)
                same(os.pread(file, len(data), at), data, f"{name}: {len(data)} bytes at {at}")
        expected = bytearray(b"a" * 3000 + b"b" * 10 + b"a" * 1990)
        expected += bytes((1 << 20) - len(expected)) + b"d" + b"c" * 69_999
        expected[200_000:200_001] = b"e"
        same(read(d / name), bytes(expected), name)


@case
def the_time_of_a_write_is_kept_though_only_the_data_was_synced(d):
    write(d / "a", b"x" * 200_000)
    with opened(d / "a", os.O_RDWR) as file:
        os.fsync(file)
        before = os.fstat(file).st_mtime_ns
        wait_for_the_clock(d)
        os.pwrite(file, b"y", 100_000)
        os.fdatasync(file)
        after = os.fstat(file).st_mtime_ns
        check(after > before, "a write changes the time")
    same(os.stat(d / "a").st_mtime_ns, after, "the time when it is closed")


# reading and writing


@case
def reads_end_at_the_end(d):
    write(d / "a", b"0123456789")
    with opened(d / "a") as file:
        same(os.pread(file, 100, 4), b"456789", "a read over the end")
        same((os.pread(file, 9, 10), os.pread(file, 9, 1 << 40)), (b"", b""), "reads behind the end")
        fails(errno.EINVAL, os.pread, file, 1, -1)
        fails(errno.EINVAL, os.lseek, file, -1, os.SEEK_SET)
        same(os.lseek(file, -3, os.SEEK_END), 7, "a position from the end")
        same(os.preadv(file, [one := bytearray(3), two := bytearray(3)], 2), 6, "bytes of preadv")
        same((bytes(one), bytes(two)), (b"234", b"567"), "buffers of preadv")
        same(os.pwritev(file, [b"ab", b"cde"], 8), 5, "bytes of pwritev")
    same(read(d / "a"), b"01234567abcde", "the file")


@case
def sizes_at_the_borders_of_blocks_and_stripes(d):
    for size in (0, 1, 511, 4095, 4096, 4097, 65535, 65536, 65537, MIB - 1, MIB, MIB + 1, 4 * MIB + 3):
        data = content(size, size)
        write(d / "a", data)
        check(read(d / "a") == data, f"a file of {size} bytes")
        same(os.stat(d / "a").st_size, size, "its size")
        os.unlink(d / "a")


@case
def writes_across_the_borders_of_stripes(d):
    expected = bytearray(content("base", 5 * MIB))
    write(d / "a", expected)
    with opened(d / "a") as file:
        for n, border in enumerate([65536, MIB, 2 * MIB, 3 * MIB, 4 * MIB]):
            data = content(n, 9000 + n)
            os.pwrite(file, data, border - 4000)
            expected[border - 4000 : border - 4000 + len(data)] = data
            check(os.pread(file, 20000, border - 8000) == expected[border - 8000 : border + 12000], f"around {border}")
        os.fsync(file)
    check(read(d / "a") == expected, "the file as a whole")


@case
def offsets_beyond_four_gibibytes(d):
    with opened(d / "a") as file:
        os.pwrite(file, b"far", 5 << 30)
        same((os.fstat(file).st_size, os.pread(file, 9, (5 << 30) - 2)), ((5 << 30) + 3, b"\0\0far"), "size and content")


@case
def direct_io(d):
    FLAGS = RW | os.O_DIRECT
    buffer = mmap.mmap(-1, 64 * 1024)
    data = content("direct", len(buffer))
    buffer[:] = data
    with opened(d / "a", FLAGS) as file:
        same(os.pwritev(file, [buffer], 0), len(data), "bytes written directly")
        same(os.pwritev(file, [buffer], MIB), len(data), "bytes written directly")
        buffer[:] = bytes(len(buffer))
        same(os.preadv(file, [buffer], MIB), len(data), "bytes read directly")
        check(buffer[:] == data, "what was read directly")
    check(read(d / "a") == data + bytes(MIB - len(data)) + data, "what is read through the cache")
    with opened(d / "a") as cached, opened(d / "a", FLAGS) as direct:
        os.pwrite(cached, b"cached", 8192)
        os.preadv(direct, [buffer], 0)
        same(buffer[8192:8198], b"cached", "a direct read after a cached write")
        buffer[:6] = b"direct"
        os.pwritev(direct, [buffer], 0)
        same(os.pread(cached, 6, 0), b"direct", "a cached read after a direct write")


@case
def what_was_cut_early_does_not_come_back(d):
    """Written data that reached the servers before its size did, and was cut away then."""
    with opened(d / "a", RW):
        for data in (b"x" * 808_829, b"y" * 583_180):
            with opened(d / "a", os.O_WRONLY | os.O_APPEND) as file:
                os.write(file, data)
        with opened(d / "a", os.O_WRONLY | os.O_TRUNC) as file:
            os.write(file, b"1" * 100)
        with opened(d / "a", os.O_WRONLY) as file:
            os.pwrite(file, b"2" * 38_092, 0)
        os.truncate(d / "a", 2 * MIB)
        same(read(d / "a"), b"2" * 38_092 + bytes(2 * MIB - 38_092), "the file")


@case
def truncation_leaves_nothing_behind(d):
    write(d / "a", content("full", 3 * MIB))
    for size in (2 * MIB + 17, MIB, 70000, 4097, 10):
        os.truncate(d / "a", size)
        same(os.stat(d / "a").st_size, size, "size")
    os.truncate(d / "a", 3 * MIB)
    check(read(d / "a") == content("full", 10) + bytes(3 * MIB - 10), "zeros where the file was cut and grown again")
    fails(errno.EINVAL, os.truncate, d / "a", -1)
    fails(errno.EISDIR, os.truncate, d, 0)
    fails(errno.ENOENT, os.truncate, d / "none", 0)


@case
def two_descriptors_see_each_other(d):
    with opened(d / "a") as one, opened(d / "a") as two:
        for n in range(200):
            data = content(n, 1 + n * 37 % 5000)
            os.pwrite(one, data, n * 11)
            check(os.pread(two, len(data), n * 11) == data, f"write {n} by one, read by two")
            same(os.fstat(two).st_size, os.fstat(one).st_size, "size")


@case
def an_unlinked_open_file_lives_on(d):
    with opened(d / "a") as file:
        os.write(file, b"before ")
        os.unlink(d / "a")
        fails(errno.ENOENT, os.stat, d / "a")
        os.write(file, b"after")
        same((os.pread(file, 99, 0), os.fstat(file).st_nlink), (b"before after", 0), "the nameless file")
        os.ftruncate(file, 6)
        os.fchmod(file, 0o600)
        os.fsync(file)
        same((os.fstat(file).st_size, stat.S_IMODE(os.fstat(file).st_mode)), (6, 0o600), "size and mode")
        fails(errno.ENOENT, link_open_file, file, d / "back")
        write(d / "a", b"another file")
        same(os.pread(file, 99, 0), b"before", "the nameless file, with another by its name")


@case
def tmpfile_is_nameless_until_it_is_linked(d):
    with opened(d, os.O_TMPFILE | os.O_RDWR, 0o600) as file:
        os.write(file, b"from nowhere")
        same((os.listdir(d), os.fstat(file).st_nlink), ([], 0), "no name yet")
        link_open_file(file, d / "named")
        same((os.fstat(file).st_nlink, stat.S_IMODE(os.fstat(file).st_mode)), (1, 0o600), "links and mode")
    same(read(d / "named"), b"from nowhere", "the file")
    with opened(d, os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600) as file:
        fails(errno.ENOENT, link_open_file, file, d / "never")
    same(os.listdir(d), ["named"], "the directory")


# mmap


@case
def mmap_shared_is_the_file(d):
    write(d / "a", content("map", 3 * PAGE + 100))
    with opened(d / "a") as file:
        mapped = mmap.mmap(file, 0)
        mapped[PAGE - 3 : PAGE + 3] = b"mapped"
        mapped.flush()
        same(os.pread(file, 6, PAGE - 3), b"mapped", "read after msync")
        os.pwrite(file, b"pwrite", 2 * PAGE)
        same(mapped[2 * PAGE : 2 * PAGE + 6], b"pwrite", "the map after pwrite")
        mapped[0:5] = b"first"
        mapped.close()
    same(read(d / "a")[:5], b"first", "read after munmap")
    with opened(d / "a") as file:
        mapped = mmap.mmap(file, 0)
    mapped[7:12] = b"later"
    mapped.close()
    same(read(d / "a")[7:12], b"later", "written after the descriptor was closed")


@case
def mmap_private_is_not_the_file(d):
    write(d / "a", bytes(PAGE))
    with opened(d / "a", os.O_RDONLY) as file:
        mapped = mmap.mmap(file, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        mapped[0:7] = b"private"
        same(mapped[0:7], b"private", "the map")
        mapped.close()
        fails(errno.EACCES, mmap.mmap, file, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_WRITE)
    same(read(d / "a"), bytes(PAGE), "the file")


@case
def mmap_of_a_file_that_grows(d):
    with opened(d / "a") as file:
        os.ftruncate(file, PAGE)
        mapped = mmap.mmap(file, PAGE)
        mapped[0:3] = b"one"
        os.ftruncate(file, 2 * PAGE)
        mapped.resize(2 * PAGE)
        mapped[PAGE : PAGE + 3] = b"two"
        mapped.flush()
        mapped.close()
        same((os.pread(file, 3, 0), os.pread(file, 3, PAGE)), (b"one", b"two"), "both pages")


@case
def mmap_beyond_the_end_is_a_bus_error(d):
    write(d / "a", b"short")

    def touch():
        with opened(d / "a", os.O_RDONLY) as file:
            mapped = mmap.mmap(file, 0, prot=mmap.PROT_READ)
            os.truncate(d / "a", 0)
            mapped[0]

    status = os.waitpid(fork_to(touch), 0)[1]
    same(os.waitstatus_to_exitcode(status), -signal.SIGBUS, "how the child ended")


@case
def processes_share_a_map(d):
    write(d / "a", bytes(PAGE))
    with opened(d / "a") as file:
        mapped = mmap.mmap(file, PAGE)

        def answer():
            with opened(d / "a") as own:
                mmap.mmap(own, PAGE)[0:5] = b"child"

        same(os.waitpid(fork_to(answer), 0)[1], 0, "exit status of the child")
        same(mapped[0:5], b"child", "what the parent's map shows")
        mapped.close()


# holes


@case
def holes_are_zeros_and_cost_nothing(d):
    with opened(d / "a") as file:
        os.pwrite(file, b"end", 1 << 30)
        found = os.fstat(file)
        same(os.pread(file, MIB, 512 * MIB), bytes(MIB), "a hole")
    same(found.st_size, (1 << 30) + 3, "size")
    check(found.st_blocks * 512 < 16 * MIB, f"{found.st_blocks * 512} bytes taken by a file of 3 bytes and a hole")


@case
def seek_finds_data_and_holes(d):
    DATA = 64 * MIB
    with opened(d / "a") as file:
        os.pwrite(file, content("data", MIB), DATA)
        os.ftruncate(file, 2 * DATA)
        os.fsync(file)
        data = os.lseek(file, 0, os.SEEK_DATA)
        check(0 < data <= DATA, f"data is found at {data}, written at {DATA}")
        hole = os.lseek(file, DATA, os.SEEK_HOLE)
        check(DATA + MIB <= hole < 2 * DATA, f"a hole is found at {hole}")
        same(os.lseek(file, 5, os.SEEK_HOLE), 5, "a hole at the start")
        fails(errno.ENXIO, os.lseek, file, hole, os.SEEK_DATA)
        fails(errno.ENXIO, os.lseek, file, 2 * DATA, os.SEEK_DATA)
        fails(errno.ENXIO, os.lseek, file, 3 * DATA, os.SEEK_HOLE)
    write(d / "full", content("full", 3 * MIB + 5))
    with opened(d / "full") as file:
        same((os.lseek(file, 7, os.SEEK_DATA), os.lseek(file, 7, os.SEEK_HOLE)), (7, 3 * MIB + 5), "a file without holes")


@case
def fallocate_makes_room(d):
    with opened(d / "a") as file:
        os.write(file, b"data")
        fallocate(file, 0, 0, MIB)
        same((os.fstat(file).st_size, os.pread(file, 6, 0)), (MIB, b"data\0\0"), "size and content")
        fallocate(file, FALLOC_KEEP_SIZE, MIB, MIB)
        same(os.fstat(file).st_size, MIB, "size with KEEP_SIZE")
        os.posix_fallocate(file, 0, 2 * MIB)
        same(os.fstat(file).st_size, 2 * MIB, "size after posix_fallocate")
        fails(errno.EINVAL, fallocate, file, 0, 0, 0)
        fails(errno.EINVAL, fallocate, file, 0, -1, 10)
        fails(errno.EOPNOTSUPP, fallocate, file, FALLOC_PUNCH_HOLE, 0, 4096)


@case
def fallocate_punches_and_zeroes(d):
    data = content("punch", 4 * MIB)
    for mode, name in (
        (FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, "punch"),
        (FALLOC_ZERO_RANGE, "zero"),
        (FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, "zero-keep"),
    ):
        expected = bytearray(data)
        write(d / name, data)
        with opened(d / name) as file:
            for start, length in ((100, 50), (5000, 70000), (MIB - 10, 2 * MIB + 20)):
                if try_fallocate(file, mode, start, length, name):
                    expected[start : start + length] = bytes(length)
            check(os.pread(file, len(data), 0) == expected, f"{name}: zeros in the ranges and nowhere else")
            try_fallocate(file, mode, 4 * MIB - 100, 1100, name)
            grown = 4 * MIB + 1000 if name == "zero" and os.fstat(file).st_size != 4 * MIB else 4 * MIB
            same(os.fstat(file).st_size, grown, f"{name}: size")


def try_fallocate(file, mode, start, length, name):
    """tmpfs has no ZERO_RANGE, which proves nothing about the script; whoever has it has to do it right."""
    try:
        fallocate(file, mode, start, length)
        return True
    except OSError as error:
        check(error.errno == errno.EOPNOTSUPP and name != "punch" and is_tmpfs(file), f"{name}: {error}")
        return False


def is_tmpfs(file):
    device = os.fstat(file).st_dev
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        number = f"{os.major(device)}:{os.minor(device)}"
        return any(line.split()[2] == number and " - tmpfs " in line for line in mounts)


@case
def punching_gives_space_back(d):
    write(d / "a", content("a", 8 * MIB))
    with opened(d / "a") as file:
        os.fsync(file)
        before = os.fstat(file).st_blocks
        fallocate(file, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, MIB, 6 * MIB)
        os.fsync(file)
        after = os.fstat(file).st_blocks
    check(after <= before - 5 * MIB // 512, f"{before} blocks before, {after} after")


@case
def copy_file_range_copies(d):
    data = content("copy", 3 * MIB)
    write(d / "a", data)
    with opened(d / "a") as source, opened(d / "b") as target:
        copied = 0
        while copied < len(data) - 10:
            count = os.copy_file_range(source, target, len(data) - 10 - copied, 10 + copied, copied)
            check(count > 0, "some bytes are copied each time")
            copied += count
        same(os.copy_file_range(source, target, 10, len(data), 0), 0, "bytes copied from behind the end")
        check(os.pread(target, len(data), 0) == data[10:], "the copy")
        same(os.copy_file_range(source, source, 1000, 0, MIB), 1000, "bytes copied within a file")
        check(os.pread(source, 1000, MIB) == data[:1000], "the copy within the file")
        fails(errno.EINVAL, os.copy_file_range, source, source, 1000, 0, 500)
    with opened(d / "a", os.O_RDONLY) as source, opened(d / "b", os.O_RDONLY) as target:
        fails(errno.EBADF, os.copy_file_range, source, target, 10)


@case
def sendfile_reads_it(d):
    write(d / "a", content("send", 200_000))
    with opened(d / "a", os.O_RDONLY) as source, opened(d / "b") as target:
        sent = 0
        while count := os.sendfile(target, source, sent, 200_000):
            sent += count
    check(read(d / "b") == content("send", 200_000), "what was sent")


# times


@case
def times_are_exact_to_the_nanosecond(d):
    write(d / "a")
    for at in ((1, 999_999_999), (1_700_000_000_123_456_789, 1_600_000_000_987_654_321), (0, 4_000_000_000_000_000_001)):
        os.utime(d / "a", ns=at)
        found = os.stat(d / "a")
        same((found.st_atime_ns, found.st_mtime_ns), at, "atime and mtime")
    os.utime(d / "a", ns=(-1_000_000_000, -86_400_000_000_000))
    same(os.stat(d / "a").st_mtime_ns, -86_400_000_000_000, "a time before 1970")
    os.symlink("a", d / "link")
    os.utime(d / "link", ns=(5, 6), follow_symlinks=False)
    same((os.lstat(d / "link").st_mtime_ns, os.stat(d / "a").st_mtime_ns), (6, -86_400_000_000_000), "times of the link alone")


@case
def writing_changes_mtime_and_ctime(d):
    write(d / "a")
    with opened(d / "a") as file:
        for act in (
            lambda: os.write(file, b"more"),
            lambda: os.ftruncate(file, 1),
            lambda: fallocate(file, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 0, 1),
        ):
            os.utime(d / "a", (1, 1))
            before = os.stat(d / "a").st_ctime_ns
            wait_for_the_clock(d)
            act()
            found = os.fstat(file)
            check(found.st_mtime > 1 and found.st_ctime_ns > before, "mtime and ctime after a change of content")


@case
def a_change_of_attributes_changes_ctime_alone(d):
    write(d / "a")
    os.utime(d / "a", (1, 1))
    for act in (
        lambda: os.chmod(d / "a", 0o600),
        lambda: os.setxattr(d / "a", "user.k", b"v"),
        lambda: os.rename(d / "a", d / "a2") or os.rename(d / "a2", d / "a"),
    ):
        before = os.stat(d / "a").st_ctime_ns
        wait_for_the_clock(d)
        act()
        found = os.stat(d / "a")
        check(found.st_ctime_ns > before, "ctime after a change of attributes")
        same(found.st_mtime, 1, "mtime")


def wait_for_the_clock(d):
    """Until files get a later time than they did: kernels count them in ticks of some milliseconds."""
    os.close(os.open(d / "tick", RW))
    os.utime(d / "tick")
    first = os.stat(d / "tick").st_mtime_ns
    while os.stat(d / "tick").st_mtime_ns == first:
        time.sleep(0.001)
        os.utime(d / "tick")


@case
def times_are_as_now(d):
    before = time.time_ns()
    write(d / "a")
    after = time.time_ns()
    TICK_NS = 20_000_000
    for at in (os.stat(d / "a").st_mtime_ns, os.stat(d / "a").st_ctime_ns):
        check(before - TICK_NS <= at <= after + TICK_NS, f"written between {before} and {after}, says {at}")


@case
def a_written_mtime_set_by_utime_stays(d):
    with opened(d / "a") as file:
        os.write(file, b"written back later")
        os.utime(d / "a", ns=(10, 20))
        os.fsync(file)
    same(os.stat(d / "a").st_mtime_ns, 20, "mtime after fsync and close")


@case
def times_of_others_are_theirs(d):
    write(d / "a")
    os.chmod(d / "a", 0o666)
    as_user(12345, 12345, [], lambda: os.utime(d / "a"))
    as_user(12345, 12345, [], lambda: fails(errno.EPERM, os.utime, d / "a", (1, 1)))
    os.chmod(d / "a", 0o644)
    as_user(12345, 12345, [], lambda: fails(errno.EACCES, os.utime, d / "a"))


cases_main(__doc__)
