"""Locks: flock and byte ranges, within one mount and across two; waits, what ends a lock, and deadlocks."""

import errno
import fcntl
import multiprocessing
import multiprocessing.connection
import os
import signal
import struct
import time

from cases import case, cases_main, check, fails
from common import same

# A wait that should end takes moments; only a failing script waits this long.
PATIENCE_S = 30
# Long enough that a call which does not wait has answered.
BLOCKED_S = 0.3
FLOCK = struct.Struct("@hhqqi4x")
F_OFD_GETLK, F_OFD_SETLK = 36, 37
FREE, BUSY = None, (errno.EAGAIN, errno.EACCES)


class Holder:
    """A process that opens a file and does what it is told with it."""

    def __init__(self, path, flags=os.O_RDWR):
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=obey, args=(theirs, path, flags), daemon=True)
        self.process.start()
        theirs.close()
        self.answer()

    def start(self, act, *arguments):
        self.pipe.send((act, arguments))

    def answer(self, within=PATIENCE_S):
        check(self.pipe.poll(within), f"no answer within {within} s")
        value, number = self.pipe.recv()
        if number is not None:
            raise OSError(number, os.strerror(number))
        return value

    def do(self, act, *arguments):
        self.start(act, *arguments)
        return self.answer()

    def is_blocked(self):
        return not self.pipe.poll(BLOCKED_S)

    def kill(self):
        self.process.kill()
        self.process.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.pipe.close()


def obey(pipe, path, flags):
    descriptors = {}
    signal.signal(signal.SIGUSR1, interrupted)
    try:
        descriptors["first"] = os.open(path, flags)
        pipe.send((None, None))
        while True:
            act, arguments = pipe.recv()
            try:
                pipe.send((act(descriptors, path, *arguments), None))
            except OSError as error:
                pipe.send((None, error.errno))
    except EOFError:
        os._exit(0)


def interrupted(*_):
    raise InterruptedError(errno.EINTR, "a signal")


# What a holder can be told.


def flock(descriptors, _path, how, which="first"):
    fcntl.flock(descriptors[which], how)


def lock(descriptors, _path, how, start=0, length=0, which="first"):
    fcntl.lockf(descriptors[which], how, length, start)


def get_lock(descriptors, _path, kind, start, length):
    """(kind, start, length, pid) of a lock that is in the way; None where there is none."""
    asked = FLOCK.pack(kind, os.SEEK_SET, start, length, 0)
    found = FLOCK.unpack(fcntl.fcntl(descriptors["first"], fcntl.F_GETLK, asked))
    return None if found[0] == fcntl.F_UNLCK else (found[0], found[2], found[3], found[4])


def ofd_lock(descriptors, _path, kind, start, length, which="first"):
    fcntl.fcntl(descriptors[which], F_OFD_SETLK, FLOCK.pack(kind, os.SEEK_SET, start, length, 0))


def open_again(descriptors, path, which):
    descriptors[which] = os.open(path, os.O_RDWR)


def duplicate(descriptors, _path, which):
    descriptors[which] = os.dup(descriptors["first"])


def close(descriptors, _path, which="first"):
    os.close(descriptors.pop(which))


def fork_and_lock(descriptors, _path, how, start, length):
    """The errno a child gets that inherited the descriptor; 0 when it got the lock."""
    child = os.fork()
    if child == 0:
        try:
            fcntl.lockf(descriptors["first"], how, length, start)
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


EX, SH, UN, NB = fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_UN, fcntl.LOCK_NB


def file_in(*places):
    """The same new file as each mount shows it."""
    with open(places[0] / "file", "wb") as file:
        file.write(bytes(1000))
    return [place / "file" for place in places]


def eventually(act, what):
    """Repeats a non-blocking attempt: a lock of a process that was killed is freed soon, not at once."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return act()
        except OSError as error:
            check(error.errno in BUSY and time.monotonic() < deadline, f"{what}: {error}")
            time.sleep(0.02)


# flock


@case
def flock_excludes(a, b):
    one, two = file_in(a, b)
    with Holder(one) as first, Holder(two) as second:
        first.do(flock, EX)
        fails(errno.EWOULDBLOCK, second.do, flock, EX | NB)
        fails(errno.EWOULDBLOCK, second.do, flock, SH | NB)
        first.do(flock, UN)
        second.do(flock, EX | NB)


@case
def flock_shares(a, b):
    one, two = file_in(a, b)
    with Holder(one) as first, Holder(two) as second:
        first.do(flock, SH)
        second.do(flock, SH | NB)
        fails(errno.EWOULDBLOCK, second.do, flock, EX | NB)
        first.do(flock, UN)
        second.do(flock, EX | NB)
        fails(errno.EWOULDBLOCK, first.do, flock, SH | NB)
        second.do(flock, SH)
        first.do(flock, SH | NB)


@case
def flock_waits_until_it_is_free(a, b):
    one, two = file_in(a, b)
    for free in ((flock, UN), (close,)):
        with Holder(one) as first, Holder(two) as second:
            first.do(flock, EX)
            second.start(flock, EX)
            check(second.is_blocked(), "flock did not wait")
            first.do(*free)
            second.answer()
            if free[0] is flock:
                fails(errno.EWOULDBLOCK, first.do, flock, EX | NB)


@case
def flock_belongs_to_the_open_file(a, b):
    one, two = file_in(a, b)
    with Holder(one) as first, Holder(two) as second:
        first.do(flock, EX)
        first.do(duplicate, "dup")
        first.do(close)
        fails(errno.EWOULDBLOCK, second.do, flock, EX | NB)
        first.do(open_again, "other")
        fails(errno.EWOULDBLOCK, first.do, flock, EX | NB, "other")
        first.do(close, "dup")
        # FUSE tells the last close after close(2) has returned.
        eventually(lambda: second.do(flock, EX | NB), "the lock after the last close")


@case
def flock_of_a_killed_process_is_freed(a, b):
    one, two = file_in(a, b)
    with Holder(one) as first, Holder(two) as second:
        first.do(flock, EX)
        second.start(flock, EX)
        check(second.is_blocked(), "flock did not wait")
        first.kill()
        second.answer()


@case
def flock_is_interrupted(a, b):
    one, two = file_in(a, b)
    with Holder(one) as first, Holder(two) as second, Holder(two) as third:
        first.do(flock, EX)
        second.start(flock, EX)
        check(second.is_blocked(), "flock did not wait")
        os.kill(second.process.pid, signal.SIGUSR1)
        fails(errno.EINTR, second.answer)
        first.do(flock, UN)
        # The one that gave up must not have been given the lock behind its back.
        eventually(lambda: third.do(flock, EX | NB), "the lock after an interrupted wait")


@case
def many_wait_and_each_gets_its_turn(a, b):
    paths = file_in(a, b)
    with Holder(paths[0]) as first:
        first.do(flock, EX)
        waiting = [Holder(paths[n % 2]) for n in range(6)]
        for holder in waiting:
            holder.start(flock, EX)
        first.do(flock, UN)
        turn(waiting)


def turn(waiting):
    """Exactly one holder has the lock at any time, until all have had it."""
    left = list(waiting)
    while left:
        ready = multiprocessing.connection.wait([holder.pipe for holder in left], PATIENCE_S)
        check(len(ready) == 1, f"{len(ready)} hold the lock at once")
        holder = next(holder for holder in left if holder.pipe is ready[0])
        holder.answer()
        check(not multiprocessing.connection.wait([other.pipe for other in left if other is not holder], 0.05), "two hold the lock")
        left.remove(holder)
        holder.do(flock, UN)
    for holder in waiting:
        holder.kill()


# byte ranges


@case
def ranges_exclude_where_they_overlap(a, b):
    one, two = file_in(a, b)
    with Holder(one) as first, Holder(two) as second:
        first.do(lock, EX, 100, 50)
        second.do(lock, EX | NB, 0, 100)
        second.do(lock, EX | NB, 150, 50)
        for start, length in ((99, 2), (149, 1), (100, 50), (0, 0)):
            fails(BUSY, second.do, lock, EX | NB, start, length)
            fails(BUSY, second.do, lock, SH | NB, start, length)
        first.do(lock, UN, 100, 50)
        second.do(lock, EX | NB, 99, 52)


@case
def ranges_are_shared_by_readers(a, b):
    one, two = file_in(a, b)
    with Holder(one) as first, Holder(two) as second:
        first.do(lock, SH, 0, 100)
        second.do(lock, SH | NB, 50, 100)
        fails(BUSY, second.do, lock, EX | NB, 50, 10)
        second.do(lock, EX | NB, 100, 10)
        fails(BUSY, first.do, lock, EX | NB, 0, 60)
        first.do(lock, EX | NB, 0, 50)


@case
def ranges_are_split_and_joined(a, b):
    one, two = file_in(a, b)
    with Holder(one) as first, Holder(two) as second:
        first.do(lock, EX, 0, 300)
        first.do(lock, UN, 100, 100)
        second.do(lock, EX | NB, 100, 100)
        fails(BUSY, second.do, lock, EX | NB, 99, 1)
        fails(BUSY, second.do, lock, EX | NB, 200, 1)
        second.do(lock, UN, 100, 100)
        first.do(lock, SH, 50, 200)
        second.do(lock, SH | NB, 50, 200)
        fails(BUSY, second.do, lock, SH | NB, 49, 1)
        fails(BUSY, second.do, lock, SH | NB, 250, 1)
        first.do(lock, UN)
        second.do(lock, EX | NB)


@case
def ranges_reach_to_the_end_of_all_files(a, b):
    one, two = file_in(a, b)
    with Holder(one) as first, Holder(two) as second:
        first.do(lock, EX, 500, 0)
        second.do(lock, EX | NB, 0, 500)
        fails(BUSY, second.do, lock, EX | NB, (1 << 62), 1)


@case
def getlk_tells_who_is_in_the_way(a):
    (one,) = file_in(a)
    with Holder(one) as first, Holder(one) as second:
        first.do(lock, EX, 100, 50)
        same(second.do(get_lock, fcntl.F_RDLCK, 0, 0), (fcntl.F_WRLCK, 100, 50, first.process.pid), "the lock in the way")
        same(second.do(get_lock, fcntl.F_WRLCK, 0, 100), FREE, "beside it")
        same(first.do(get_lock, fcntl.F_WRLCK, 0, 0), FREE, "one's own lock")


@case
def getlk_sees_across_mounts(a, b):
    one, two = file_in(a, b)
    with Holder(one) as first, Holder(two) as second:
        first.do(lock, SH, 100, 50)
        same(second.do(get_lock, fcntl.F_WRLCK, 120, 10)[:3], (fcntl.F_RDLCK, 100, 50), "the lock in the way, whatever its pid means here")
        same(second.do(get_lock, fcntl.F_RDLCK, 120, 10), FREE, "readers")


@case
def ranges_are_waited_for(a, b):
    one, two = file_in(a, b)
    for free in ((lock, UN, 0, 100), (close,)):
        with Holder(one) as first, Holder(two) as second:
            first.do(lock, EX, 0, 100)
            second.start(lock, EX, 50, 100)
            check(second.is_blocked(), "the lock did not wait")
            first.do(*free)
            second.answer()


@case
def any_close_frees_a_process_ranges(a, b):
    one, two = file_in(a, b)
    with Holder(one) as first, Holder(two) as second:
        first.do(lock, EX, 0, 100)
        first.do(open_again, "other")
        first.do(close, "other")
        eventually(lambda: second.do(lock, EX | NB, 0, 100), "the range after a close of another descriptor (POSIX)")


@case
def ranges_of_a_killed_process_are_freed(a, b):
    one, two = file_in(a, b)
    with Holder(one) as first, Holder(two) as second:
        first.do(lock, EX, 0, 100)
        second.start(lock, EX, 0, 10)
        check(second.is_blocked(), "the lock did not wait")
        first.kill()
        second.answer()


@case
def ranges_are_not_inherited(a):
    (one,) = file_in(a)
    with Holder(one) as first:
        first.do(lock, EX, 0, 100)
        check(first.do(fork_and_lock, EX | NB, 0, 100) in BUSY, "a child got its parent's range")


@case
def a_wait_for_a_range_is_interrupted(a, b):
    one, two = file_in(a, b)
    with Holder(one) as first, Holder(two) as second, Holder(two) as third:
        first.do(lock, EX)
        second.start(lock, EX)
        check(second.is_blocked(), "the lock did not wait")
        os.kill(second.process.pid, signal.SIGUSR1)
        fails(errno.EINTR, second.answer)
        first.do(lock, UN)
        eventually(lambda: third.do(lock, EX | NB), "the range after an interrupted wait")


@case
def a_deadlock_is_told(a, b):
    one, two = file_in(a, b)
    with Holder(one) as first, Holder(two) as second:
        first.do(lock, EX, 0, 10)
        second.do(lock, EX, 10, 10)
        first.start(lock, EX, 10, 10)
        check(first.is_blocked(), "the lock did not wait")
        fails(errno.EDEADLK, second.do, lock, EX, 0, 10)
        second.do(lock, UN, 10, 10)
        first.answer()


@case
def a_deadlock_of_three_is_told(a, b):
    paths = file_in(a, b)
    with Holder(paths[0]) as first, Holder(paths[1]) as second, Holder(paths[0]) as third:
        holders = [first, second, third]
        for n, holder in enumerate(holders):
            holder.do(lock, EX, 10 * n, 10)
        for n in (0, 1):
            holders[n].start(lock, EX, 10 * (n + 1), 10)
            check(holders[n].is_blocked(), "the lock did not wait")
        fails(errno.EDEADLK, third.do, lock, EX, 0, 10)


@case
def write_locks_need_a_descriptor_to_write(a):
    (one,) = file_in(a)
    with Holder(one, os.O_RDONLY) as reader, Holder(one, os.O_WRONLY) as writer:
        fails(errno.EBADF, reader.do, lock, EX | NB)
        fails(errno.EBADF, writer.do, lock, SH | NB)
        reader.do(lock, SH | NB, 0, 10)
        writer.do(lock, EX | NB, 10, 10)
        reader.do(flock, EX | NB)


@case
def ranges_of_open_files(a, b):
    """F_OFD_SETLK: locks that belong to the open file, also among threads of one process."""
    one, two = file_in(a, b)
    with Holder(one) as first, Holder(two) as second:
        first.do(open_again, "other")
        first.do(ofd_lock, fcntl.F_WRLCK, 0, 100)
        fails(BUSY, first.do, ofd_lock, fcntl.F_WRLCK, 50, 10, "other")
        fails(BUSY, second.do, lock, EX | NB, 50, 10)
        first.do(close, "other")
        fails(BUSY, second.do, lock, EX | NB, 50, 10)
        first.do(close)
        eventually(lambda: second.do(lock, EX | NB, 0, 100), "the range after its open file was closed")


@case
def both_kinds_are_apart(a):
    (one,) = file_in(a)
    with Holder(one) as first, Holder(one) as second:
        first.do(flock, EX)
        second.do(lock, EX | NB)


@case
def locks_survive_rename_and_unlink(a, b):
    one, two = file_in(a, b)
    with Holder(one) as first, Holder(two) as second:
        first.do(lock, EX, 0, 10)
        first.do(flock, EX)
        os.rename(one, a / "renamed")
        fails(BUSY, second.do, lock, EX | NB, 0, 10)
        os.unlink(a / "renamed")
        fails(errno.EWOULDBLOCK, second.do, flock, EX | NB)
        first.do(flock, UN)
        second.do(flock, EX | NB)


@case
def a_counter_under_a_lock_loses_nothing(a, b):
    PROCESSES, ROUNDS = 4, 100
    for how in (flock_counter, range_counter):
        paths = file_in(a, b)
        with open(paths[0], "wb") as file:
            file.write(b"0")
        workers = [multiprocessing.get_context("fork").Process(target=how, args=(paths[n % 2], ROUNDS)) for n in range(PROCESSES)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            same(worker.exitcode, 0, "exit code of a worker")
        with open(paths[1], "rb") as file:
            same(int(file.read()), PROCESSES * ROUNDS, f"the counter under {how.__name__}")


def flock_counter(path, rounds):
    count_up(path, rounds, lambda descriptor, how: fcntl.flock(descriptor, how))


def range_counter(path, rounds):
    count_up(path, rounds, lambda descriptor, how: fcntl.lockf(descriptor, how))


def count_up(path, rounds, locked):
    descriptor = os.open(path, os.O_RDWR)
    for _ in range(rounds):
        locked(descriptor, fcntl.LOCK_EX)
        value = int(os.pread(descriptor, 20, 0))
        os.pwrite(descriptor, str(value + 1).encode(), 0)
        locked(descriptor, fcntl.LOCK_UN)


cases_main(__doc__)
