"""Samba serves the mount to smbclient, on a loopback port of its own: files go in, come out, are renamed and removed, and the mounts show the same."""

import os
import signal
import socket
import subprocess
import time

from common import Failed, check, content, elsewhere, main, program, run, same

START_WITHIN_S = 30
CONFIG = """[global]
server role = standalone server
interfaces = lo
bind interfaces only = yes
smb ports = {port}
disable netbios = yes
map to guest = Bad User
guest account = {user}
load printers = no
printcap name = /dev/null
log file = {state}/log
max log size = 0
pid directory = {state}
lock directory = {state}
state directory = {state}
cache directory = {state}
private dir = {state}
ncalrpc dir = {state}/ncalrpc
[share]
path = {path}
guest ok = yes
guest only = yes
read only = no
force user = {user}
"""


def serve(places, _arguments):
    shared = places[0] / "shared"
    shared.mkdir()
    with elsewhere() as state:
        server, port = start(shared, state)
        try:
            check_share(lambda *commands: client(port, state, *commands), state, [place / "shared" for place in places])
        finally:
            stop(server)
    return f"put, get, list, rename and remove through {len(places)} mounts"


def start(shared, state):
    """Starts smbd in the foreground, with everything it keeps below `state`."""
    port = free_port()
    config = f"{state}/smb.conf"
    user = run("id", "--user", "--name").strip()
    with open(config, "w", encoding="utf-8") as file:
        file.write(CONFIG.format(port=port, state=state, path=shared, user=user))
    command = [program("smbd"), "--foreground", "--no-process-group", "--debug-stdout", "-s", config]
    with open(f"{state}/out", "wb") as out:
        # A session of its own: children of smbd that are still there when it is ended go with it.
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    deadline = time.monotonic() + START_WITHIN_S
    while not listens(port):
        if server.poll() is not None or time.monotonic() > deadline:
            stop(server)
            with open(f"{state}/out", encoding="utf-8", errors="replace") as out:
                raise Failed(f"smbd does not listen on port {port}:\n{out.read()[-3000:]}")
        time.sleep(0.05)
    return server, port


def stop(server):
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def client(port, state, *commands):
    """One session of smbclient. It ends with 1 when a command fails."""
    words = [program("smbclient"), "//127.0.0.1/share", "-p", str(port), "-N", "-s", f"{state}/smb.conf", "-c", "; ".join(commands)]
    output = run(*words, cwd=state)
    check("NT_STATUS_" not in output, f"smbclient: {output}")
    return output


def check_share(smb, state, shares):
    data = content("samba", 3_000_001)
    with open(f"{state}/local", "wb") as file:
        file.write(data)
    smb("mkdir dir", "put local dir/remote", "cd dir", "put local second")
    for share in shares:
        check((share / "dir/remote").read_bytes() == data, f"what was put, by {share}")
    listed = smb("ls dir/*")
    check("remote" in listed and str(len(data)) in listed, f"the listing: {listed}")
    (shares[-1] / "dir/from-the-mount").write_bytes(data[::-1])
    smb("get dir/from-the-mount fetched", "get dir/remote fetched-back")
    for name, expected in (("fetched", data[::-1]), ("fetched-back", data)):
        with open(f"{state}/{name}", "rb") as file:
            check(file.read() == expected, f"what was fetched as {name}")
    smb("rename dir/remote dir/renamed", "del dir/second")
    for share in shares:
        same(sorted(os.listdir(share / "dir")), ["from-the-mount", "renamed"], f"the directory by {share}")
    smb("del dir/*", "rmdir dir")
    same(os.listdir(shares[-1]), [], "the share at last")


main(__doc__, serve)
