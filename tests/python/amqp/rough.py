"""Rough handling: `rough.py HOST PORT [CONNECTIONS] [QUEUES]`. Garbage on the wire, many connections, many queues."""
import os
import random
import socket
import sys

import pika

HOST, PORT = sys.argv[1], int(sys.argv[2])
CONNECTIONS = int(sys.argv[3]) if len(sys.argv) > 3 else 200
QUEUES = int(sys.argv[4]) if len(sys.argv) > 4 else 1000


def connect():
    return pika.BlockingConnection(pika.ConnectionParameters(HOST, PORT))


def garbage(rng):
    """Random bytes at every stage of a conversation."""
    header = b"AMQP\0\0\x09\x01"
    for n in range(200):
        with socket.create_connection((HOST, PORT), timeout=10) as client:
            try:
                client.sendall(header if n % 4 else b"")
                client.sendall(rng.randbytes(rng.randrange(1, 3000)))
                # Frames that look right and hold rubbish.
                for _ in range(rng.randrange(5)):
                    payload = rng.randbytes(rng.randrange(60))
                    kind = bytes([rng.choice([1, 1, 2, 3, 8])])
                    size = len(payload).to_bytes(4, "big")
                    client.sendall(kind + rng.choice([b"\0\0", b"\0\1"]) + size + payload + b"\xce")
                if n % 3 == 0:
                    client.recv(4096)
            except OSError:
                pass


def many_connections():
    connections = [connect() for _ in range(CONNECTIONS)]
    channels = [connection.channel() for connection in connections]
    for n, channel in enumerate(channels):
        channel.queue_declare(f"own-{n}", exclusive=True)
        channel.basic_publish("", f"own-{n}", b"x")
    for n, channel in enumerate(channels):
        assert channel.basic_get(f"own-{n}", auto_ack=True)[2] == b"x"
    for connection in connections:
        connection.close()


def many_queues():
    with connect() as connection:
        channel = connection.channel()
        channel.exchange_declare("wide", "fanout")
        for n in range(QUEUES):
            channel.queue_declare(f"wide-{n}")
            channel.queue_bind(f"wide-{n}", "wide")
        channel.confirm_delivery()
        channel.basic_publish("wide", "", b"x")
        for n in range(QUEUES):
            assert channel.queue_delete(f"wide-{n}").method.message_count == 1
        channel.exchange_delete("wide")


seed = int(os.environ.get("SEED", random.randrange(1 << 30)))
print("SEED", seed, flush=True)
garbage(random.Random(seed))
print("ok garbage", flush=True)
many_connections()
print("ok many connections", flush=True)
many_queues()
print("ok many queues", flush=True)
