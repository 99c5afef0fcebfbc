"""Celery's simplest app, with results over AMQP. The broker's address is in KILN_AMQP (host:port)."""
import os

from celery import Celery

app = Celery("celery_app", broker=f"amqp://guest:guest@{os.environ['KILN_AMQP']}//", backend="rpc://")
app.conf.broker_connection_retry_on_startup = True
app.conf.task_queue_max_priority = 10
app.conf.task_default_queue = "celery-kiln"


@app.task
def add(x, y):
    return x + y
