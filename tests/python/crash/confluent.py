"""The same with confluent-kafka (librdkafka).

confluent.py produce TOPIC FIRST COUNT
confluent.py consume TOPIC GROUP COUNT
"""

import os
import sys
import time

from confluent_kafka import Consumer, Producer

PATIENCE_S = 60


def produce(topic, first, count):
    failed = []
    producer = Producer({"bootstrap.servers": os.environ["KAFKA"], "enable.idempotence": True})
    for n in range(int(first), int(first) + int(count)):
        producer.produce(topic, str(n).encode(), on_delivery=lambda error, _: error and failed.append(error))
        producer.poll(0)
    left = producer.flush(PATIENCE_S)
    if failed or left:
        sys.exit(f"{left} not delivered, {failed[:1]}")


def consume(topic, group, count):
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["KAFKA"],
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    left = int(count)
    until = time.monotonic() + PATIENCE_S
    last = None
    while left > 0 and time.monotonic() < until:
        message = consumer.poll(0.5)
        if message is None:
            continue
        if message.error():
            print(message.error(), file=sys.stderr)
            continue
        print(message.value().decode())
        last = message
        left -= 1
    if last is not None:
        consumer.commit(message=last, asynchronous=False)
    consumer.close()
    sys.exit(f"{left} records short" if left > 0 else 0)


if __name__ == "__main__":
    {"produce": produce, "consume": consume}[sys.argv[1]](*sys.argv[2:])
