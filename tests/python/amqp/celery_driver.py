"""Runs a Celery worker and 100 tasks through it: `celery_driver.py HOST PORT`. Ends with 0 when all came back."""
import os
import subprocess
import sys

host, port = sys.argv[1], sys.argv[2]
os.environ["KILN_AMQP"] = f"{host}:{port}"
here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)

import celery_app  # noqa: E402

command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--concurrency", "2", "--loglevel", "WARNING"]
worker = subprocess.Popen(command, cwd=here)
try:
    results = [celery_app.add.apply_async((n, n), priority=n % 10) for n in range(100)]
    for n, result in enumerate(results):
        assert result.get(timeout=60) == 2 * n
    # The worker answers remote control over its pidbox: a fanout exchange and an expiring reply queue.
    pongs = celery_app.app.control.ping(timeout=5)
    assert len(pongs) == 1, pongs
finally:
    worker.terminate()
    worker.wait(30)
print("ok 100 tasks")
