"""Before and after a crash: `durable.py HOST:PORT write STATE`, kill the broker, `durable.py HOST:PORT read STATE`.

What was acknowledged with acks=all is there afterwards, once and in order; the group goes on where it had committed.
"""

import json
import sys

from confluent_kafka import Consumer, Producer, TopicPartition

from common import address, check, unique, until

COUNT = 2000
COMMITTED = 700


def write(server, path):
    topic, group = unique("durable"), unique("durable-group")
    failures = []
    producer = Producer({"bootstrap.servers": server, "enable.idempotence": True, "linger.ms": 1})
    for n in range(COUNT):
        producer.produce(topic, value=b"%d" % n, partition=0, on_delivery=lambda e, _: e and failures.append(e))
        producer.poll(0)
    check(producer.flush(60) == 0 and failures == [], f"acknowledged: {failures[:3]}")
    consumer = Consumer({"bootstrap.servers": server, "group.id": group, "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition(topic, 0, COMMITTED)], asynchronous=False)
    consumer.close()
    with open(path, "w", encoding="utf-8") as out:
        json.dump({"topic": topic, "group": group}, out)
    print("ok: written")


def read(server, path):
    with open(path, encoding="utf-8") as state:
        names = json.load(state)
    consumer = Consumer({"bootstrap.servers": server, "group.id": names["group"], "auto.offset.reset": "error"})
    consumer.subscribe([names["topic"]])
    seen = []

    def step():
        for message in consumer.consume(500, timeout=0.5):
            check(message.error() is None, f"{message.error()}")
            seen.append((message.offset(), int(message.value())))

    until(lambda: len(seen) >= COUNT - COMMITTED, "the rest of the records", step)
    check(seen == [(n, n) for n in range(COMMITTED, COUNT)], f"from the committed offset on: {seen[:3]}")
    where = TopicPartition(names["topic"], 0)
    check(consumer.get_watermark_offsets(where, timeout=30) == (0, COUNT), "nothing more, nothing less")
    consumer.close()
    print("ok: read after the crash")


def main():
    if len(sys.argv) < 4:
        sys.exit(f"usage: {sys.argv[0]} HOST:PORT write|read STATE")
    {"write": write, "read": read}[sys.argv[2]](address(), sys.argv[3])


main()
