"""Runs a script's cases: small functions that each check one thing in a directory of their own, all of them, whatever fails.

`script.py DIR [DIR] --only NAME` repeats one. A case takes as many directories as it names: the same new directory, seen through so many mounts.
"""

import errno
import inspect
import os
import pickle
import shlex
import sys
import traceback

from common import Failed, Skipped, check, main, parser, several

CASES = []


def case(function):
    """Marks a function as a case."""
    CASES.append(function)
    return function


def cases_main(doc):
    """Runs all cases of the script, or those named."""
    arguments = parser(doc)
    arguments.add_argument("--only", action="append", default=[], metavar="CASE", help="only this case; may be given several times")
    main(doc, run_cases, arguments.parse_args())


def run_cases(places, arguments):
    wanted = [function for function in CASES if function.__name__ in arguments.only or not arguments.only]
    check(wanted, f"no such case; there are {', '.join(function.__name__ for function in CASES)}")
    failed, skipped = 0, []
    for function in wanted:
        try:
            run_case(function, places)
        except Skipped as why:
            skipped.append(f"{function.__name__}: {why}")
        except (Failed, OSError, AssertionError) as error:
            failed += 1
            print(f"FAILED {function.__name__}: {error}{where(error)}\n    {repeat_case(function, arguments)}", flush=True)
    for line in skipped:
        print(f"skipped {line}", flush=True)
    check(failed == 0, f"{failed} of {len(wanted)} cases")
    return f"{len(wanted) - len(skipped)} cases" + (f", {len(skipped)} skipped" if skipped else "")


def run_case(function, places):
    count = len(inspect.signature(function).parameters)
    seen = [place / function.__name__ for place in several(places, count)[:count]]
    seen[0].mkdir()
    seen[0].chmod(0o755)
    before, umask = os.getcwd(), os.umask(0o022)
    try:
        function(*seen)
    finally:
        os.chdir(before)
        os.umask(umask)


def where(error):
    """The line of the script that failed, not that of the helper."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == os.path.abspath(sys.argv[0])]
    return f"  [line {own[-1].lineno}: {own[-1].line}]" if own else ""


def repeat_case(function, arguments):
    mounts = shlex.join(map(str, arguments.mounts))
    return f"repeat with: {shlex.quote(sys.executable)} {shlex.quote(sys.argv[0])} {mounts} --only {function.__name__}"


def fails(number, act, *arguments, **options):
    """Checks that a call fails, and with this errno, or one of these."""
    numbers = number if isinstance(number, tuple) else (number,)
    expected = " or ".join(errno.errorcode[each] for each in numbers)
    try:
        act(*arguments, **options)
    except OSError as error:
        check(error.errno in numbers, f"{errno.errorcode.get(error.errno, error.errno)} instead of {expected}")
        return
    raise Failed(f"succeeded instead of {expected}")


def root_only():
    if os.geteuid() != 0:
        raise Skipped("needs root")


def as_user(uid, gid, groups, act):
    """Runs `act` in a child that is this user, and returns what it returns, or raises what it raises."""
    root_only()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with os.fdopen(writer, "wb") as out:
            pickle.dump(outcome_as(uid, gid, groups, act), out)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        data = answer.read()
    os.waitpid(child, 0)
    check(data, "the child died")
    value, error = pickle.loads(data)
    if error is not None:
        raise error
    return value


def outcome_as(uid, gid, groups, act):
    try:
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        return act(), None
    except (OSError, Failed) as error:
        return None, error
