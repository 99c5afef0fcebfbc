"""Bytes that no client sends: garbage, truncated and oversized frames, unknown versions, hundreds of connections.

The broker answers with the protocol's error or closes; its memory stays bounded, and a normal client is served
throughout. `hostile.py HOST:PORT [PID]`: with the broker's PID, its memory is checked too.
"""

import os
import socket
import struct
import sys
import time

from confluent_kafka.admin import AdminClient

from common import address, check, unique

MEMORY_KIB_MAX = 400 << 10


def connect(server):
    host, port = server.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=20)


def frame(body):
    return struct.pack(">i", len(body)) + body


def request(key, version, body=b"", client=b"x"):
    return struct.pack(">hhih", key, version, 7, len(client)) + client + body


def exchange(server, data, end=False):
    """What comes back until the broker closes or has answered once; nothing if it closes."""
    with connect(server) as peer:
        peer.sendall(data)
        if end:
            peer.shutdown(socket.SHUT_WR)
        try:
            return peer.recv(65536)
        except ConnectionResetError:
            return b""


def closes(server, data, what):
    check(exchange(server, data, end=True) == b"", f"{what}: the broker should just close")


def memory_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def garbage(server):
    closes(server, b"GET / HTTP/1.1\r\n\r\n", "HTTP")
    closes(server, os.urandom(4096), "noise")
    closes(server, struct.pack(">i", -1), "negative length")
    closes(server, struct.pack(">i", 2_000_000_000) + b"x" * 100, "2 GB frame")
    closes(server, struct.pack(">i", 1000) + b"x" * 10, "cut frame")
    closes(server, frame(request(3, 99)), "version from the future")
    closes(server, frame(request(999, 0)), "unknown key")
    closes(server, frame(request(0, 9, b"\xff" * 50)), "broken produce")
    for key in (1, 2, 3, 8, 9, 11, 14, 19, 32):
        for version in range(4):
            exchange(server, frame(request(key, version, b"\x7f\xff\xff\xff" * 8)), end=True)
    for version in (6, 9):
        exchange(server, frame(request(3, version, b"\x00\xff\xff\xff\xff\x0f" * 8)), end=True)


def api_versions(server):
    answer = exchange(server, frame(request(18, 99)))
    length, correlation, error = struct.unpack(">iih", answer[:10])
    check((length, correlation, error) == (len(answer) - 4, 7, 35), f"ApiVersions 99: {answer[:16]}")
    count = struct.unpack(">i", answer[10:14])[0]
    check(len(answer) == 14 + 6 * count, "a version 0 body")


def crowd(server):
    peers = [connect(server) for _ in range(300)]
    for n, peer in enumerate(peers):
        # Claims much, sends little, and stays.
        peer.sendall(struct.pack(">i", 1 << 20) + b"x" * (n % 50))
    check(len(AdminClient({"bootstrap.servers": server}).list_topics(timeout=30).brokers) == 1, "served in a crowd")
    for peer in peers:
        peer.close()


def goes_away(server):
    """A client that leaves while its topic is being created does not leave the topic half made."""
    for n in range(60):
        topic = unique("gone").encode()
        ask = frame(request(3, 0, struct.pack(">ih", 1, len(topic)) + topic))
        with connect(server) as peer:
            peer.sendall(ask)
            time.sleep(n / 10000)
        answer = exchange(server, ask)
        at = answer.index(topic)
        error = struct.unpack(">h", answer[at - 4 : at - 2])[0]
        check(error == 0, f"topic asked for again after {n / 10} ms: error {error}")


def main():
    server = address()
    garbage(server)
    api_versions(server)
    crowd(server)
    goes_away(server)
    if len(sys.argv) > 2:
        used = memory_kib(int(sys.argv[2]))
        check(used < MEMORY_KIB_MAX, f"{used} KiB resident")
        print(f"resident: {used} KiB")
    check(len(AdminClient({"bootstrap.servers": server}).list_topics(timeout=30).brokers) == 1, "still served")
    print("ok: hostile bytes")


main()
