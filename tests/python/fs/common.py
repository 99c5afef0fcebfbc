"""What the scripts share: the mounts they were given, programs they run, and how a failure is told.

Every script takes directories that are mounts of the same filesystem, and works in a new directory that it sees through each of them. A plain local
directory, given as often as needed, must do too: that proves the script. A script that fails keeps its directory and prints the command to repeat it.
"""

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import traceback
import uuid
from pathlib import Path

COMMAND_WITHIN_S = 600


class Failed(Exception):
    """What a check found."""


class Skipped(Exception):
    """Why something cannot be shown here."""


def check(condition, message):
    """Fails the script unless the condition holds."""
    if not condition:
        raise Failed(message)


def same(actual, expected, what):
    """Fails the script unless both are equal, and shows both."""
    check(actual == expected, f"{what}: {shortened(actual)} instead of {shortened(expected)}")


def shortened(value):
    SHOWN = 300
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def parser(doc, mounts="+"):
    """The arguments that all have: the mounts."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("mounts", nargs=mounts, type=Path, metavar="DIR", help="mounts of the same filesystem")
    return made


def main(doc, act, arguments=None):
    """Runs `act(places, arguments)`, where places are one new directory seen through each mount; prints what it returns, or how it failed."""
    arguments = arguments or parser(doc).parse_args()
    name = f"{Path(sys.argv[0]).stem}-{uuid.uuid4().hex[:8]}"
    places = [mount.resolve() / name for mount in arguments.mounts]
    try:
        make_place(places)
        summary = act(places, arguments)
        shutil.rmtree(places[0])
    except Skipped as why:
        remove_quietly(places[0])
        print(f"skipped: {why}")
        return
    except (Failed, OSError, subprocess.SubprocessError) as failure:
        if not isinstance(failure, Failed):
            traceback.print_exc()
        # Lines of its own: the message may be the output of a program.
        sys.exit(f"FAILED: {failure}\nleft as it was: {places[0]}\nrepeat with: {repeat_command()}")
    print(f"ok: {summary}")


def make_place(places):
    places[0].mkdir()
    # Other users take part in some scripts.
    places[0].chmod(0o755)
    for place in places[1:]:
        check(place.is_dir(), f"{places[0]} was made and is not seen as {place}")


def remove_quietly(place):
    shutil.rmtree(place, ignore_errors=True)


def repeat_command(*further):
    """The command that repeats this run; a script with a seed hands it in."""
    return shlex.join([sys.executable, *sys.argv, *further])


def several(places, count):
    """At least `count` places: those there are, again and again."""
    return [places[n % len(places)] for n in range(max(count, len(places)))]


def program(name):
    """Where a program lies that the script drives."""
    system = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=system)
    check(found, f"{name} is not installed; run: make test-deps")
    return found


def run(*command, codes=(0,), **options):
    """Runs a command to its end and returns what it printed, on either stream; fails the script with it when the exit code is none of `codes`."""
    words = [str(word) for word in command]
    options = {"stdin": subprocess.DEVNULL, "timeout": COMMAND_WITHIN_S, **options}
    ran = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options)
    output = ran.stdout.decode(errors="replace")
    where = f"cd {shlex.quote(str(options['cwd']))} && " if options.get("cwd") else ""
    check(ran.returncode in codes, f"$ {where}{shlex.join(words)}\n{output}[exit code {ran.returncode}]")
    return output


def elsewhere():
    """A temporary directory that is not on the filesystem under test."""
    return tempfile.TemporaryDirectory(prefix="kiln-fs-")


def digest(data):
    return hashlib.sha256(data).hexdigest()


def content(seed, size):
    """Bytes that differ from seed to seed and compress badly."""
    block = hashlib.sha512(str(seed).encode()).digest()
    return (block * (size // len(block) + 1))[:size]
