"""confluent-kafka (librdkafka): idempotent producing with every codec, and a consumer group."""

from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from common import address, check, unique, until

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
COUNT = 300


def produce(server, topic, codec):
    failures = []
    producer = Producer(
        {
            "bootstrap.servers": server,
            "enable.idempotence": True,
            "compression.type": codec,
            "linger.ms": 20,
        }
    )
    for n in range(COUNT):
        value = f"{codec}-{n}-".encode() + b"x" * 200
        producer.produce(topic, key=codec, value=value, on_delivery=lambda error, _: error and failures.append(error))
        producer.poll(0)
    check(producer.flush(60) == 0, f"flush with {codec}")
    check(failures == [], f"deliveries with {codec}: {failures[:3]}")


def consume(server, topic, group, count):
    consumer = Consumer(
        {
            "bootstrap.servers": server,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "check.crcs": True,
        }
    )
    consumer.subscribe([topic])
    seen = []

    def step():
        for message in consumer.consume(500, timeout=0.5):
            check(message.error() is None or message.error().code() == KafkaError._PARTITION_EOF, f"{message.error()}")
            seen.append((message.partition(), message.offset(), message.value()))

    until(lambda: len(seen) >= count, f"{count} records", step)
    consumer.commit(asynchronous=False)
    consumer.close()
    return seen


def main():
    server = address()
    topic, group = unique("ck"), unique("ck-group")
    admin = AdminClient({"bootstrap.servers": server})
    for future in admin.create_topics([NewTopic(topic, 3, 1)]).values():
        future.result(30)
    for codec in CODECS:
        produce(server, topic, codec)
    seen = consume(server, topic, group, COUNT * len(CODECS))
    values = sorted(value for _, _, value in seen)
    expected = sorted(f"{codec}-{n}-".encode() + b"x" * 200 for codec in CODECS for n in range(COUNT))
    check(values == expected, "every record once")
    for codec in CODECS:
        numbers = [int(value.split(b"-")[1]) for _, _, value in seen if value.startswith(codec.encode() + b"-")]
        check(numbers == list(range(COUNT)), f"{codec} in order")

    extra = Producer({"bootstrap.servers": server, "acks": "1"})
    extra.produce(topic, value=b"last")
    check(extra.flush(30) == 0, "flush with acks=1")
    seen = consume(server, topic, group, 1)
    check([value for _, _, value in seen] == [b"last"], f"the group goes on where it was: {seen[:3]}")
    for future in admin.delete_topics([topic]).values():
        future.result(30)
    print("ok: confluent-kafka idempotent, codecs, group")


main()
