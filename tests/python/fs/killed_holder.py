"""A client that is killed while its programs hold locks and have files open: the other mount gets the locks and the files within the limit.

`killed_holder.py DIR DIR --kill COMMAND [--within SECONDS]`. COMMAND kills the client of the first mount. Without it the holding process is killed instead,
which proves the script on a plain directory.
"""

import fcntl
import multiprocessing
import os
import threading
import time

from common import check, content, main, parser, run, same

SIZE = 200_000


def hold(place, ready):
    """Takes every kind of lock there is, and leaves a file open without a name and another with data that was never synced."""
    descriptors = [os.open(place / name, os.O_RDWR) for name in ("flock", "range", "written")]
    fcntl.flock(descriptors[0], fcntl.LOCK_EX)
    fcntl.lockf(descriptors[1], fcntl.LOCK_EX, 100, 50)
    os.pwrite(descriptors[2], content("synced", SIZE), 0)
    os.fsync(descriptors[2])
    os.pwrite(descriptors[2], b"never synced", 0)
    nameless = os.open(place / "nameless", os.O_RDWR | os.O_CREAT)
    os.write(nameless, content("nameless", SIZE))
    os.unlink(place / "nameless")
    ready.set()
    threading.Event().wait()


def take_over(places, arguments):
    first, second = places
    for name in ("flock", "range", "written"):
        (first / name).touch()
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=hold, args=(first, ready), daemon=True)
    holder.start()
    check(ready.wait(60), "the holder has its locks")
    check(refused(second / "flock", fcntl.flock) and refused(second / "range", fcntl.lockf), "locks that are held are refused")
    started = time.monotonic()
    if arguments.kill:
        run("sh", "-c", arguments.kill)
    else:
        holder.kill()
    within(arguments.within, started, "flock", lambda: not refused(second / "flock", fcntl.flock))
    within(arguments.within, started, "the range", lambda: not refused(second / "range", fcntl.lockf))
    data = (second / "written").read_bytes()
    same(len(data), SIZE, "the size of what was synced")
    check(data[12:] == content("synced", SIZE)[12:] and data[:12] in (b"never synced", content("synced", 12)), "what was synced is there")
    (second / "written").write_bytes(b"written by the other")
    same((second / "written").read_bytes(), b"written by the other", "what the other mount wrote then")
    check(not (second / "nameless").exists(), "the file without a name has none")
    (second / "new").write_bytes(b"x")
    elapsed = time.monotonic() - started
    holder.kill()
    # What was made here is removed through the first place, and that is dead now.
    places.reverse()
    return f"locks and files were free {elapsed:.1f} s after the kill"


def refused(path, how):
    descriptor = os.open(path, os.O_RDWR)
    try:
        how(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def within(seconds, started, what, free):
    while not free():
        check(time.monotonic() - started < seconds, f"{what} is still held {seconds} s after the kill")
        time.sleep(0.05)


made = parser(__doc__, mounts=2)
made.add_argument("--kill", metavar="COMMAND")
made.add_argument("--within", type=float, default=60, metavar="SECONDS")
main(__doc__, take_over, made.parse_args())
