"""The filesystems that are measured: each knows what it needs, how it starts on a fresh disk, and how it is mounted.

Everything runs in the namespaces that bench/fs/run has made: only loopback is there, and /run and the peers' own directories are empty. So the peers
find their defaults, and nothing of them outlives the run.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

START_WITHIN_S = 60
STOP_WITHIN_S = 20
VOLUME = "bench"
# GlusterFS and MooseFS refuse 127.0.0.1 for a server; bench/fs/run puts this one on the loopback device of its namespace.
OWN_ADDRESS = "10.255.255.1"
MOOSEFS_PORTS = {"matoml": 9419, "matocs": 9420, "matocl": 9421}
LIBC = ctypes.CDLL(None, use_errno=True)
MNT_DETACH = 2


class System:
    """One filesystem on `disk`, the directory of a fresh RAM-backed ext4; `mountpoint` is where it is measured."""

    name = ""
    packages = ()
    programs = ()

    def __init__(self, disk, mountpoint, logs):
        self.disk, self.mountpoint, self.logs = Path(disk), Path(mountpoint), Path(logs)
        self.children = []

    @classmethod
    def missing(cls):
        """Programs that are not installed."""
        return [program for program in cls.programs if shutil.which(program) is None]

    def version(self):
        return ""

    def start(self):
        """Starts the servers, and mounts."""
        raise NotImplementedError

    def mount(self):
        raise NotImplementedError

    def unmount(self):
        """Takes the mount away, so that the client's caches go with it."""
        run("umount", self.mountpoint)

    def stop(self):
        """Unmounts and ends the servers, whatever state they are in."""
        LIBC.umount2(os.fsencode(self.mountpoint), MNT_DETACH)
        for child in reversed(self.children):
            end(child)

    def spawn(self, *command, **options):
        """Starts a server in the foreground, as a child that is ended by its process id."""
        log = open(self.logs / f"{self.name}-{Path(command[0]).name}-{len(self.children)}.log", "wb")
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)
        self.children.append(child)

    def wait(self, what, condition):
        """Waits until it is so, or a server has ended."""
        deadline = time.monotonic() + START_WITHIN_S
        while not holds(condition):
            ended = [child for child in self.children if child.poll() is not None]
            if ended:
                raise RuntimeError(f"{ended[0].args[0]} ended with {ended[0].returncode} before this: {what}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"waited {START_WITHIN_S} s for this: {what}")
            time.sleep(0.1)


class Ext4(System):
    """The filesystem underneath: a directory of it, bound to the place where the others are mounted."""

    name = "ext4"

    def version(self):
        return os.uname().release

    def start(self):
        (self.disk / "plain").mkdir()
        self.mount()

    def mount(self):
        run("mount", "--bind", self.disk / "plain", self.mountpoint)


class GlusterFs(System):
    """Two bricks, files distributed over them, one copy of each."""

    name = "GlusterFS"
    packages = ("glusterfs-server", "glusterfs-client")
    programs = ("glusterd", "gluster", "glusterfs")

    def version(self):
        return run("glusterd", "--version").split()[1]

    def start(self):
        self.spawn("glusterd", "--no-daemon", "--log-file", self.logs / "glusterd.log")
        self.wait("glusterd answers", lambda: succeeds("gluster", "--mode=script", "volume", "list"))
        bricks = [f"{OWN_ADDRESS}:{self.disk}/brick{n}" for n in (1, 2)]
        run("gluster", "--mode=script", "volume", "create", VOLUME, *bricks, "force")
        run("gluster", "--mode=script", "volume", "start", VOLUME)
        self.mount()

    def mount(self):
        run("glusterfs", "-s", OWN_ADDRESS, "--volfile-id", VOLUME, "--log-file", self.logs / "gluster-mount.log", self.mountpoint)
        self.wait("GlusterFS is mounted", lambda: os.path.ismount(self.mountpoint) and os.listdir(self.mountpoint) is not None)

    def stop(self):
        LIBC.umount2(os.fsencode(self.mountpoint), MNT_DETACH)
        run("gluster", "--mode=script", "volume", "stop", VOLUME, "force", check=False)
        super().stop()


class MooseFs(System):
    """A master and two chunkservers, one copy of each chunk."""

    name = "MooseFS"
    packages = ("moosefs-master", "moosefs-chunkserver", "moosefs-client")
    programs = ("mfsmaster", "mfschunkserver", "mfsmount")

    def version(self):
        return run("mfsmount", "--version").split()[2]

    def start(self):
        self.start_master()
        for n in (1, 2):
            self.start_chunkserver(n)
        self.mount()
        self.wait("both chunkservers are connected", lambda: space(self.mountpoint) > 1.5 * space(self.disk))
        run("mfssetgoal", "-r", "1", self.mountpoint)

    def start_master(self):
        directory = self.disk / "master"
        directory.mkdir()
        shutil.copy("/var/lib/mfs/metadata.mfs.empty", directory / "metadata.mfs")
        (directory / "exports.cfg").write_text("* / rw,alldirs,maproot=0\n")
        listen = "".join(f"{name.upper()}_LISTEN_HOST = {OWN_ADDRESS}\n{name.upper()}_LISTEN_PORT = {port}\n" for name, port in MOOSEFS_PORTS.items())
        config = directory / "mfsmaster.cfg"
        config.write_text(f"{self.common(directory)}EXPORTS_FILENAME = {directory}/exports.cfg\n{listen}")
        self.spawn("mfsmaster", "-c", config, "-f", "start")
        self.wait("the master listens", lambda: listens(MOOSEFS_PORTS["matocl"]))

    def start_chunkserver(self, n):
        directory = self.disk / f"chunkserver{n}"
        (directory / "chunks").mkdir(parents=True)
        (directory / "hdd.cfg").write_text(f"{directory}/chunks\n")
        port = 9430 + n
        config = directory / "mfschunkserver.cfg"
        config.write_text(
            f"{self.common(directory)}HDD_CONF_FILENAME = {directory}/hdd.cfg\nHDD_LEAVE_SPACE_DEFAULT = 64MiB\nMASTER_HOST = {OWN_ADDRESS}\n"
            f"MASTER_PORT = {MOOSEFS_PORTS['matocs']}\nCSSERV_LISTEN_HOST = {OWN_ADDRESS}\nCSSERV_LISTEN_PORT = {port}\n"
        )
        self.spawn("mfschunkserver", "-c", config, "-f", "start")
        self.wait(f"chunkserver {n} listens", lambda: listens(port))

    @staticmethod
    def common(directory):
        return f"WORKING_USER = root\nWORKING_GROUP = root\nDATA_PATH = {directory}\nLOCK_MEMORY = 0\n"

    def mount(self):
        run("mfsmount", self.mountpoint, "-H", OWN_ADDRESS, "-P", str(MOOSEFS_PORTS["matocl"]))


class Kiln(System):
    """One MDT and two OSTs, on virtual nodes of one machine."""

    name = "Kiln"
    binary = Path("target/release/kiln")
    nodes = 2
    create_options = ()

    @classmethod
    def missing(cls):
        if not cls.binary.exists():
            return [f"{cls.binary} (cargo build --release -p kiln)"]
        return [] if succeeds(cls.binary, "fs", "--help") else [f"{cls.binary} fs"]

    def version(self):
        return run(self.binary, "--version").split()[-1]

    def start(self):
        self.environment = dict(os.environ, KILN_DATA=str(self.disk / "kiln"))
        self.spawn(self.binary, "up", "--nodes", str(self.nodes), env=self.environment)
        self.wait("Kiln is ready", self.is_ready)
        self.kiln("fs", "create", VOLUME, *self.create_options)
        self.mount()

    def mount(self):
        self.kiln("fs", "mount", VOLUME, self.mountpoint)

    def unmount(self):
        self.kiln("fs", "umount", self.mountpoint)

    def is_ready(self):
        try:
            return json.loads(self.kiln("status", "--json", check=False))["ready"]
        except ValueError:
            return False  # it does not answer yet

    def kiln(self, *arguments, check=True):
        return run(self.binary, *arguments, check=check, env=self.environment)


def run(*command, check=True, **options):
    """Runs a command to its end and returns what it printed; when it fails, so does the benchmark, with its words."""
    # Daemons keep what they inherit, so output goes to a file: a pipe would be waited for as long as they live.
    log = Path(os.environ.get("TMPDIR", "/tmp")) / f"fs-bench-{os.getpid()}.out"
    with open(log, "w+b") as out:
        ran = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=120, **options)
    text = log.read_text(errors="replace")
    log.unlink()
    if check and ran.returncode != 0:
        raise RuntimeError(f"`{' '.join(map(str, command))}` ended with {ran.returncode}: {text.strip()}")
    return text


def succeeds(*command):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def holds(condition):
    try:
        return condition()
    except OSError:
        return False  # not yet


def space(directory):
    """All bytes of a filesystem. MooseFS adds what its chunkservers have, and counts the disk they share twice."""
    figures = os.statvfs(directory)
    return figures.f_blocks * figures.f_frsize


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex((OWN_ADDRESS, port)) == 0


def end(child):
    """Asks a child to end, and kills it when it does not."""
    child.terminate()
    try:
        child.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
        child.wait()


ALL = {system.name.lower(): system for system in (Ext4, GlusterFs, MooseFs, Kiln)}
