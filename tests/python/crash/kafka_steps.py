"""Producing and consuming in a group with kafka-python, in steps between which Kiln is killed.

kafka_steps.py produce TOPIC FIRST COUNT   each record acknowledged with acks=all before the next step may begin
kafka_steps.py consume TOPIC GROUP COUNT   COUNT records of the group, committed; prints their values, one per line
kafka_steps.py through TOPIC COUNT         produces all the time, whatever dies meanwhile; prints the values that were acknowledged
"""

import os
import sys
import time

from kafka import KafkaConsumer, KafkaProducer

PATIENCE_S = 60


def produce(topic, first, count):
    producer = KafkaProducer(bootstrap_servers=os.environ["KAFKA"], acks="all", enable_idempotence=True)
    sent = [producer.send(topic, str(n).encode()) for n in range(int(first), int(first) + int(count))]
    for future in sent:
        future.get(timeout=PATIENCE_S)
    producer.close()


def consume(topic, group, count):
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=os.environ["KAFKA"],
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    left = int(count)
    until = time.monotonic() + PATIENCE_S
    while left > 0 and time.monotonic() < until:
        for records in consumer.poll(timeout_ms=500, max_records=left).values():
            for record in records:
                print(record.value.decode())
                left -= 1
    consumer.commit()
    consumer.close()
    sys.exit(f"{left} records short" if left > 0 else 0)


def through(topic, count):
    producer = KafkaProducer(
        bootstrap_servers=os.environ["KAFKA"],
        acks="all",
        enable_idempotence=True,
        retry_backoff_ms=50,
        reconnect_backoff_ms=50,
        request_timeout_ms=5000,
        delivery_timeout_ms=PATIENCE_S * 1000,
        linger_ms=1,
    )
    waiting = []
    for n in range(int(count)):
        waiting.append((n, producer.send(topic, str(n).encode())))
        time.sleep(0.002)
        if n == int(count) // 4:
            print("started", flush=True)
    for n, future in waiting:
        future.get(timeout=PATIENCE_S)
        print(n)
    producer.close()


if __name__ == "__main__":
    {"produce": produce, "consume": consume, "through": through}[sys.argv[1]](*sys.argv[2:])
