"""Groups while somebody kills and restarts the broker: `group_survive.py HOST:PORT [SECONDS]`.

Three members of confluent-kafka and three of kafka-python, each kind in a group of its own, read and commit through
every outage. They come back, no committed offset goes back, and each group sees every record that was acknowledged.
"""

import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kafka import KafkaConsumer
from kafka.errors import KafkaError

from common import address, check, unique, until

MEMBERS = 3
PARTITIONS = 6


class Confluent:
    """A member on librdkafka."""

    def __init__(self, server, topic, group):
        self.client = Consumer(
            {
                "bootstrap.servers": server,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 500,
                "log_level": 0,
                "reconnect.backoff.max.ms": 500,
            }
        )
        self.client.subscribe([topic])

    def step(self):
        return [m.value() for m in self.client.consume(200, timeout=0.3) if m.error() is None]

    def commit(self):
        self.client.commit(asynchronous=False)

    def close(self):
        self.client.close()


class Python:
    """A member on kafka-python."""

    def __init__(self, server, topic, group):
        self.client = KafkaConsumer(
            topic,
            bootstrap_servers=server,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=6000,
            heartbeat_interval_ms=500,
            reconnect_backoff_max_ms=500,
        )

    def step(self):
        return [record.value for records in self.client.poll(timeout_ms=300).values() for record in records]

    def commit(self):
        self.client.commit()

    def close(self):
        self.client.close()


def read(kind, server, topic, group, seen, stopping):
    member = kind(server, topic, group)
    while not stopping.is_set():
        try:
            got = member.step()
            seen.update(got)
            if got:
                member.commit()
        except (KafkaException, KafkaError, AssertionError):
            time.sleep(0.1)  # the broker is away, or the member has to join again
    member.close()


def committed(onlooker, topic):
    """How far the onlooker's group is, by partition (-1: nothing yet); none while the broker is away."""
    asked = [TopicPartition(topic, n) for n in range(PARTITIONS)]
    try:
        return {one.partition: max(one.offset, -1) for one in onlooker.committed(asked, timeout=5)}
    except KafkaException:
        return None


def main():
    server = address()
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 10
    topic = unique("group-survive")
    groups = {unique("confluent"): Confluent, unique("python"): Python}
    admin = AdminClient({"bootstrap.servers": server, "log_level": 0})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
    stopping = threading.Event()
    seen = {group: set() for group in groups}
    threads = [
        threading.Thread(target=read, args=(kind, server, topic, group, seen[group], stopping), daemon=True)
        for group, kind in groups.items()
        for _ in range(MEMBERS)
    ]
    for thread in threads:
        thread.start()

    quiet = {"bootstrap.servers": server, "log_level": 0, "reconnect.backoff.max.ms": 500}
    onlookers = {group: Consumer({**quiet, "group.id": group}) for group in groups}  # ask, and never join
    producer = Producer({**quiet, "enable.idempotence": True, "linger.ms": 2, "delivery.timeout.ms": 120000})
    failures, count, looked = [], 0, 0
    furthest = {group: {} for group in groups}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        producer.produce(
            topic, value=b"%d" % count, partition=count % PARTITIONS, on_delivery=lambda e, _: e and failures.append(e)
        )
        count += 1
        producer.poll(0.001)
        if count % 500:
            continue
        for group in groups:
            now = committed(onlookers[group], topic)
            looked += now is not None
            for partition, offset in (now or {}).items():
                before = furthest[group].get(partition, -1)
                check(offset >= before, f"{group} partition {partition} went back from {before} to {offset}")
                furthest[group][partition] = offset
    check(producer.flush(120) == 0 and failures == [], f"produced: {failures[:3]}")
    check(looked > 0, "committed offsets were seen")
    everything = {b"%d" % n for n in range(count)}
    for group in groups:
        until(lambda: seen[group] == everything, f"{group} has seen all", deadline_s=120)
        ends = [(count - n + PARTITIONS - 1) // PARTITIONS for n in range(PARTITIONS)]
        expected = dict(enumerate(ends))
        until(lambda: committed(onlookers[group], topic) == expected, f"{group} has committed {expected}", deadline_s=60)
    described = admin.describe_consumer_groups(list(groups))
    for group in groups:
        one = described[group].result(30)
        check(len(one.members) == MEMBERS and one.state.name == "STABLE", f"{group}: {len(one.members)} {one.state}")
    stopping.set()
    for thread in threads:
        thread.join(60)
    print(f"ok: {count} records, two groups of {MEMBERS} through every outage")


main()
