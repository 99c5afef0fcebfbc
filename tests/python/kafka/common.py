"""What the scripts share: arguments, and a wait with a deadline that fails the script."""

import sys
import time
import uuid


def address():
    """HOST:PORT, the first argument."""
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} HOST:PORT")
    return sys.argv[1]


def unique(prefix):
    """A name that no other run has used."""
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


def check(condition, message):
    """Ends the script with an error unless the condition holds."""
    if not condition:
        sys.exit(f"FAILED: {message}")


def until(done, message, step=lambda: time.sleep(0.05), deadline_s=60):
    """Repeats step until done; the deadline is for a hang, not a measurement."""
    end = time.monotonic() + deadline_s
    while not done():
        check(time.monotonic() < end, f"{message}: not after {deadline_s} s")
        step()
