"""kill -9 in the middle of publishing: `killed.py HOST PORT PID COMMAND...`.

Publishes with confirms, kills process PID without warning, starts COMMAND, and finds every confirmed message once and in order.
"""
import os
import signal
import subprocess
import sys
import threading
import time

import pika

HOST, PORT, PID, COMMAND = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
KEPT = pika.BasicProperties(delivery_mode=2)


def connect(seconds=20):
    until = time.time() + seconds
    while True:
        try:
            return pika.BlockingConnection(pika.ConnectionParameters(HOST, PORT))
        except pika.exceptions.AMQPConnectionError:
            if time.time() > until:
                raise
            time.sleep(0.05)


channel = connect().channel()
channel.queue_delete("killed")
channel.queue_declare("killed", durable=True)
channel.confirm_delivery()
threading.Timer(1.0, os.kill, (PID, signal.SIGKILL)).start()
confirmed = 0
try:
    while True:
        channel.basic_publish("", "killed", b"%d" % confirmed, KEPT)
        confirmed += 1
except pika.exceptions.AMQPError:
    pass
broker = subprocess.Popen(COMMAND, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("confirmed", confirmed, "broker", broker.pid, flush=True)
connection = connect()
channel = connection.channel()
found = []
while True:
    method, _, body = channel.basic_get("killed", auto_ack=True)
    if method is None:
        break
    assert not method.redelivered
    found.append(int(body))
# The one that was on its way may be there too.
assert found in (list(range(confirmed)), list(range(confirmed + 1))), (confirmed, len(found))
channel.queue_delete("killed")
connection.close()
print("ok", flush=True)
