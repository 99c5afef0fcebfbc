"""Produces and consumes while somebody kills and restarts the broker: `survive.py HOST:PORT [SECONDS]`.

An idempotent librdkafka producer and a group of one keep going through every outage. At the end each record that was
acknowledged is there exactly once and in order, and the consumer has seen all of them.
"""

import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from common import address, check, unique, until


def consume(consumer, seen, stopping):
    while not stopping.is_set():
        try:
            for message in consumer.consume(200, timeout=0.3):
                if message.error() is None:
                    seen.append(message.offset())
            consumer.commit(asynchronous=True)
        except KafkaException:
            time.sleep(0.1)  # nothing to commit, or the broker is away


def main():
    server = address()
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 10
    topic, group = unique("survive"), unique("survive-group")
    quiet = {"bootstrap.servers": server, "log_level": 0, "reconnect.backoff.max.ms": 500}
    producer = Producer({**quiet, "enable.idempotence": True, "linger.ms": 2, "delivery.timeout.ms": 120000})
    producer.list_topics(topic, timeout=30)
    consumer = Consumer({**quiet, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.subscribe([topic])
    seen, stopping = [], threading.Event()
    reader = threading.Thread(target=consume, args=(consumer, seen, stopping), daemon=True)
    reader.start()

    acknowledged, failures = [], []

    def delivered(error, message):
        if error:
            failures.append(error)
        else:
            acknowledged.append((message.offset(), int(message.value())))

    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        producer.produce(topic, value=b"%d" % count, partition=0, on_delivery=delivered)
        count += 1
        producer.poll(0)
        time.sleep(0.0005)
    check(producer.flush(120) == 0, "flush after the outages")
    check(failures == [], f"deliveries failed: {failures[:3]}")
    check(acknowledged == [(n, n) for n in range(count)], f"once and in order: {len(acknowledged)} of {count}")
    until(lambda: len(set(seen)) >= count, "the group has seen everything", deadline_s=120)
    stopping.set()
    reader.join()
    consumer.close()
    fresh = Consumer({**quiet, "group.id": unique("fresh"), "enable.auto.commit": False})
    fresh.assign([TopicPartition(topic, 0, 0)])
    values = []

    def step():
        values.extend(int(message.value()) for message in fresh.consume(1000, timeout=0.5) if message.error() is None)

    until(lambda: len(values) >= count, "reading it all again", step)
    check(values == list(range(count)), "the log holds each record once")
    check(fresh.get_watermark_offsets(TopicPartition(topic, 0), timeout=30) == (0, count), "nothing more")
    fresh.close()
    print(f"ok: {count} records through every outage")


main()
