"""A load under which servers are killed: no completed call is lost, none is done twice, none fails.

    crash.py DIR [DIR ...] --rounds 20 --disturb COMMAND     COMMAND kills something and returns when it is back; it finds the round in $ROUND
    crash.py DIR [DIR ...] --kill PID --wait COMMAND         the same: this script sends SIGKILL, COMMAND returns when it is back

Workers on every mount create, write, append, fsync, link, rename and unlink files of their own, and all append to one log. Each writes down, on another
filesystem, what it is about to do and that it was done. Names are made with O_EXCL and removed once, so a call that was done twice fails here, and one
that was lost is missed when everything is compared, by every mount, after each round.

With --client-dies the disturbance kills the client of the first mount and mounts it again. Then calls on that mount may fail, the call that failed may or may
not have been done, and contents without fsync may be lost; everything else holds, for the other mounts all of it.
"""

import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from common import Failed, check, content, digest, elsewhere, main, parser, repeat_command, same

NAMES_MAX = 40
SIZES = [0, 10, 4096, 50_000, 70_000, 300_000]
FILE_PARTS_MAX = 6
STOP_WITHIN_S = 180
CLIENT_DIED = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ESHUTDOWN, errno.ENOENT, errno.ESTALE, errno.EBADF)


@dataclass
class File:
    """What a file holds: the parts written, each a seed and a size."""

    parts: list = field(default_factory=list)
    synced: bool = True

    def bytes(self):
        return b"".join(content(seed, size) for seed, size in self.parts)


@dataclass
class State:
    """What a worker's directory holds when its calls so far are done. Names may share a file."""

    names: dict = field(default_factory=dict)
    records: list = field(default_factory=list)
    in_doubt: dict = None

    def apply(self, call):
        """The effect of one completed call."""
        what, name = call["call"], call.get("name")
        if what == "create":
            self.names[name] = File([tuple(call["part"])], call["sync"])
        elif what == "overwrite":
            self.names[name].parts[:] = [tuple(call["part"])]
            self.names[name].synced = call["sync"]
        elif what == "append":
            self.names[name].parts.append(tuple(call["part"]))
            self.names[name].synced = call["sync"]
        elif what == "link":
            self.names[call["to"]] = self.names[name]
        elif what == "rename":
            self.names[call["to"]] = self.names.pop(name)
        elif what == "unlink":
            del self.names[name]
        else:
            self.records.append(call["record"])


def replay(journal):
    """The state after all calls that a journal has as done; the last may be in doubt."""
    state, begun = State(), None
    for line in journal.read_text().splitlines():
        entry = json.loads(line)
        if "done" not in entry:
            begun = entry
        elif entry["done"]:
            state.apply(begun)
            begun = None
    state.in_doubt = begun
    return state


class Worker:
    """Makes calls in a directory of its own until it is told to stop."""

    def __init__(self, place, number, round_number, journal, seed, may_fail):
        self.directory, self.log = place / f"worker{number}", place / "log"
        self.number, self.round, self.journal, self.may_fail = number, round_number, journal, may_fail
        self.chance = random.Random(f"{seed} {round_number} {number}")
        self.calls, self.longest = 0, 0.0

    def run(self, stop, report):
        self.state = replay(self.journal)
        with self.journal.open("a", buffering=1) as self.out:
            while not stop.is_set():
                call, act = self.choose()
                if not self.make(call, act):
                    break
        report.put(self.longest)

    def make(self, call, act):
        """One call, with what is written down before and after it."""
        self.calls += 1
        print(json.dumps(call), file=self.out)
        started = time.monotonic()
        try:
            act()
        except OSError as error:
            if self.may_fail and error.errno in CLIENT_DIED:
                return False
            raise
        self.longest = max(self.longest, time.monotonic() - started)
        print('{"done": true}', file=self.out)
        self.state.apply(call)
        return True

    def choose(self):
        names = list(self.state.names)
        kinds = ["create", "create", "record"]
        if names:
            kinds += ["overwrite", "append", "append", "link", "rename", "rename", "unlink"]
        if len(names) >= NAMES_MAX:
            kinds = ["unlink", "overwrite", "record"]
        return getattr(self, self.chance.choice(kinds))(names)

    def part(self):
        return [f"{self.number} {self.round} {self.calls}", self.chance.choice(SIZES)]

    def new_name(self):
        """One that was never used before."""
        return f"r{self.round}-{self.calls}"

    def create(self, _names):
        call = {"call": "create", "name": self.new_name(), "part": self.part(), "sync": self.chance.random() < 0.5}
        return call, lambda: self.write(call, os.O_CREAT | os.O_EXCL)

    def overwrite(self, names):
        call = {"call": "overwrite", "name": self.chance.choice(names), "part": self.part(), "sync": self.chance.random() < 0.5}
        return call, lambda: self.write(call, os.O_TRUNC)

    def append(self, names):
        name = self.chance.choice(names)
        if len(self.state.names[name].parts) >= FILE_PARTS_MAX:
            return self.overwrite(names)
        call = {"call": "append", "name": name, "part": self.part(), "sync": self.chance.random() < 0.5}
        return call, lambda: self.write(call, os.O_APPEND)

    def link(self, names):
        call = {"call": "link", "name": self.chance.choice(names), "to": self.new_name()}
        return call, lambda: os.link(self.directory / call["name"], self.directory / call["to"])

    def rename(self, names):
        name, to = self.chance.choice(names), self.chance.choice([*names, self.new_name(), self.new_name()])
        if self.state.names.get(to) is self.state.names[name]:
            to = self.new_name()  # rename to another name of the same file does nothing (POSIX)
        call = {"call": "rename", "name": name, "to": to}
        return call, lambda: os.rename(self.directory / name, self.directory / to)

    def unlink(self, names):
        call = {"call": "unlink", "name": self.chance.choice(names)}
        return call, lambda: os.unlink(self.directory / call["name"])

    def record(self, _names):
        """A line of its own in the log that all append to."""
        text = f"{self.number}:{self.round}:{self.calls}:{'x' * (self.calls % 50)}"
        return {"call": "record", "record": text}, lambda: self.append_to_log(text)

    def append_to_log(self, text):
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, f"{text}\n".encode())
            self.sync(descriptor)
        finally:
            os.close(descriptor)

    def write(self, call, flags):
        descriptor = os.open(self.directory / call["name"], os.O_WRONLY | flags, 0o644)
        try:
            data = memoryview(content(*call["part"]))
            while data:
                data = data[os.write(descriptor, data) :]
            if call["sync"]:
                self.sync(descriptor)
        finally:
            os.close(descriptor)

    def sync(self, descriptor):
        """What was written is durable by either: times are not compared."""
        (os.fsync if self.calls % 2 else os.fdatasync)(descriptor)


def run_crashes(places, arguments):
    check(arguments.disturb or arguments.wait, "say what is to be done: --disturb COMMAND, or --kill PID --wait COMMAND")
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 32)
    (places[0] / "log").touch()
    count = max(arguments.workers, len(places))
    for number in range(count):
        (places[0] / f"worker{number}").mkdir()
    with elsewhere() as directory:
        journals = [Path(directory) / f"journal{number}" for number in range(count)]
        for journal in journals:
            journal.touch()
        try:
            rounds = [one_round(places, journals, number, seed, arguments) for number in range(1, arguments.rounds + 1)]
        except Failed as error:
            raise Failed(f"{error}\nwith the same choices: {repeat_command('--seed', str(seed))}") from error
    calls, longest = sum(each for each, _ in rounds), max(each for _, each in rounds)
    return f"{arguments.rounds} rounds, {calls} calls of {count} workers on {len(places)} mounts, the longest {longest:.1f} s; seed {seed}"


def one_round(places, journals, number, seed, arguments):
    context = multiprocessing.get_context("fork")
    stop, report = context.Event(), context.SimpleQueue()
    processes = []
    for n, journal in enumerate(journals):
        may_fail = arguments.client_dies and n % len(places) == 0
        worker = Worker(places[n % len(places)], n, number, journal, seed, may_fail)
        processes.append(context.Process(target=worker.run, args=(stop, report)))
    before = lines_of(journals)
    for process in processes:
        process.start()
    try:
        time.sleep(arguments.seconds / 2)
        disturb(arguments, number)
        time.sleep(arguments.seconds / 2)
        stop.set()
        longest = wait_for(processes, report)
    finally:
        for process in processes:
            process.kill()
    states = [replay(journal) for journal in journals]
    for place in places:
        verify(place, states, number, arguments.client_dies, len(places))
    calls = (lines_of(journals) - before) // 2
    if arguments.client_dies:
        begin_anew(places[0], list(enumerate(journals))[:: len(places)])
    return calls, longest


def lines_of(journals):
    return sum(1 for journal in journals for _ in journal.open())


def disturb(arguments, number):
    for pid in arguments.kill:
        os.kill(pid, signal.SIGKILL)
    command = arguments.disturb or arguments.wait
    ran = subprocess.run(command, shell=True, check=False, env=os.environ | {"ROUND": str(number)}, stdin=subprocess.DEVNULL)
    check(ran.returncode == 0, f"round {number}: `{command}` ended with {ran.returncode}")


def wait_for(processes, report):
    deadline = time.monotonic() + STOP_WITHIN_S
    for process in processes:
        process.join(max(0, deadline - time.monotonic()))
        check(process.exitcode is not None, f"a call did not come back within {STOP_WITHIN_S} s")
    same([process.exitcode for process in processes], [0] * len(processes), "exit codes of the workers (a call failed; its error is above)")
    return max(report.get() for _ in processes)


def verify(place, states, number, client_dies, mounts):
    for worker, state in enumerate(states):
        lenient = client_dies and worker % mounts == 0
        verify_directory(place / f"worker{worker}", state, f"round {number}, worker {worker}", lenient)
    verify_log(place / "log", states, number)


def verify_directory(directory, state, who, lenient):
    doubt = state.in_doubt
    check(doubt is None or lenient, f"{who}: a call did not end: {doubt}")
    doubtful = {doubt.get("name"), doubt.get("to")} if doubt else set()
    # Other names of a file whose last write is in doubt are in doubt as well.
    touched = [state.names.get(name) for name in doubtful if name in state.names]
    doubtful |= {name for name, file in state.names.items() if any(file is each for each in touched)}
    found = set(os.listdir(directory)) - doubtful
    expected = set(state.names) - doubtful
    check(found == expected, f"{who}: lost {sorted(expected - found)}, came back {sorted(found - expected)} in {directory}")
    inodes = {}
    for name in sorted(expected):
        file = state.names[name]
        if file.synced or not lenient:
            actual, wanted = (directory / name).read_bytes(), file.bytes()
            check(
                actual == wanted, f"{who}: {name} has {len(actual)} bytes {digest(actual)[:12]} instead of {len(wanted)} bytes {digest(wanted)[:12]}"
            )
        inodes.setdefault(id(file), set()).add(os.stat(directory / name).st_ino)
    check(all(len(each) == 1 for each in inodes.values()), f"{who}: names of one file lead to several")


def verify_log(log, states, number):
    found = log.read_text().splitlines()
    wanted = [record for state in states for record in state.records]
    doubtful = {state.in_doubt["record"] for state in states if state.in_doubt and "record" in state.in_doubt}
    twice = [record for record, times in Counter(found).items() if times > 1]
    check(not twice, f"round {number}: records twice in the log: {twice[:5]}")
    lost, strange = set(wanted) - set(found), set(found) - set(wanted) - doubtful
    check(not lost and not strange, f"round {number}: the log lost {sorted(lost)[:5]} and has {sorted(strange)[:5]} that nobody wrote")


def begin_anew(place, journals):
    """After a client died: its workers' directories are emptied, since what was not synced there is not known. Their records in the log stay."""
    for worker, journal in journals:
        for name in os.listdir(place / f"worker{worker}"):
            os.unlink(place / f"worker{worker}" / name)
        records = [record for record in (place / "log").read_text().splitlines() if record.startswith(f"{worker}:")]
        journal.write_text("".join(f'{json.dumps({"call": "record", "record": record})}\n{{"done": true}}\n' for record in records))


made = parser(__doc__)
made.add_argument("--rounds", type=int, default=5)
made.add_argument("--seconds", type=float, default=4.0, help="of load in each round, besides what the disturbance takes")
made.add_argument("--workers", type=int, default=4)
made.add_argument("--disturb", metavar="COMMAND")
made.add_argument("--kill", type=int, action="append", default=[], metavar="PID")
made.add_argument("--wait", metavar="COMMAND")
made.add_argument("--client-dies", action="store_true")
made.add_argument("--seed", type=int)
main(__doc__, run_crashes, made.parse_args())
