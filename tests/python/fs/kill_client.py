"""Kills the client of a mount with SIGKILL and mounts again: `kill_client.py NAME DIR`, as crash.py's --disturb.

It finds the instance by `kiln` on PATH and $KILN_DATA. With `--only-kill` the mount stays as the dead client left it.
"""

import os
import signal
import subprocess
import sys
import time

GONE_WITHIN_S = 30


def client_of(directory):
    """The process that serves a mount: the one that was started as `kiln fs mount NAME DIR`, or went on from it."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue  # it has ended
        if b"fs" in words and b"mount" in words and os.fsencode(directory) in words:
            found.append(int(pid))
    if len(found) != 1:
        sys.exit(f"{len(found)} processes serve {directory}: {found}")
    return found[0]


def main():
    name, directory = sys.argv[1:3]
    pid = client_of(directory)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + GONE_WITHIN_S
    while os.path.exists(f"/proc/{pid}") and state_of(pid) != "Z":
        if time.monotonic() > deadline:
            sys.exit(f"the client, process {pid}, is still there {GONE_WITHIN_S} s after SIGKILL")
        time.sleep(0.02)
    if "--only-kill" not in sys.argv:
        subprocess.run(["umount", "--lazy", directory], check=True)
        subprocess.run(["kiln", "fs", "mount", "-o", "allow_other", name, directory], check=True)
    print(f"killed the client of {directory}, process {pid}")


def state_of(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


main()
