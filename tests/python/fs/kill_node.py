"""Kills a node of the running instance with SIGKILL and returns when it is ready again: `kill_node.py RANK|each`, as crash.py's --disturb.

`each` takes another one in each round, by $ROUND. It finds the instance by `kiln` on PATH and $KILN_DATA.
"""

import json
import os
import signal
import subprocess
import sys
import time

READY_WITHIN_S = 60


def status():
    """What `kiln status --json` says; nothing while it cannot be asked."""
    ran = subprocess.run(["kiln", "status", "--json"], capture_output=True, check=False)
    try:
        return json.loads(ran.stdout)
    except ValueError:
        return {}


def wait_for(what, look):
    deadline = time.monotonic() + READY_WITHIN_S
    while not (found := look()):
        if time.monotonic() > deadline:
            sys.exit(f"waited {READY_WITHIN_S} s for this: {what}")
        time.sleep(0.03)
    return found


def main():
    nodes = wait_for("the instance answers", lambda: status().get("nodes"))
    rank = int(os.environ["ROUND"]) % len(nodes) if sys.argv[1] == "each" else int(sys.argv[1])
    pid = wait_for(f"node {rank} has a process", lambda: pid_of(rank))
    os.kill(pid, signal.SIGKILL)
    wait_for(f"node {rank} has another process", lambda: pid_of(rank) not in (None, pid))
    wait_for("every node is ready", lambda: status().get("ready"))
    print(f"killed node {rank}, process {pid}")


def pid_of(rank):
    nodes = status().get("nodes") or []
    return nodes[rank].get("pid") if rank < len(nodes) else None


main()
