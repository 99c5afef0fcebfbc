"""Runs every script that needs no more than mounts: `all.py DIR [DIR ...] [--quick] [--only NAME]`.

Given a plain local directory twice it proves the scripts themselves, which needs no Kiln: `all.py /tmp/here /tmp/here`.
"""

import subprocess
import sys
import time
from pathlib import Path

from common import parser

HERE = Path(__file__).resolve().parent
# Each with its further arguments, and those of a quick run.
SCRIPTS = {
    "posix_names": ([], []),
    "posix_data": ([], []),
    "posix_attributes": ([], []),
    "posix_locks": ([], []),
    "posix_directories": ([], ["--count", "5000"]),
    "model": ([], ["--steps", "1000"]),
    "coherence": ([], ["--rounds", "20"]),
    "git_clone": ([], []),
    "build": ([], []),
    "sqlite_writers": ([], ["--rows", "50"]),
    "tar_round_trip": ([], []),
    "rsync_mirror": ([], []),
    "fio_verify": ([], []),
    "dbench_load": ([], ["--seconds", "2"]),
    "samba_share": ([], []),
    "mpi_io": ([], []),
    "crash": (["--rounds", "2", "--disturb", "true"], ["--rounds", "1", "--seconds", "1", "--disturb", "true"]),
}
TAKES_TWO = ["coherence"]


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--only", action="append", default=[], choices=SCRIPTS, metavar="NAME")
    chosen = arguments.parse_args()
    failed = [name for name in SCRIPTS if (name in chosen.only or not chosen.only) and not passes(name, chosen)]
    sys.exit(f"FAILED: {', '.join(failed)}" if failed else 0)


def passes(name, chosen):
    mounts = [str(mount) for mount in chosen.mounts]
    if name in TAKES_TWO:
        mounts = (mounts * 2)[:2]
    started = time.monotonic()
    ran = subprocess.run(
        [sys.executable, str(HERE / f"{name}.py"), *mounts, *SCRIPTS[name][chosen.quick]], check=False, capture_output=True, text=True
    )
    print(f"{name} ({time.monotonic() - started:.1f} s): {(ran.stdout + ran.stderr).strip()}", flush=True)
    return ran.returncode == 0


main()
