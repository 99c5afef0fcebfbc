"""kafka-python: produce, consume in a group of two that rebalances, commit, go on where the group was."""

import threading

from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import RebalanceInProgressError

from common import address, check, unique, until

COUNT = 400
PARTITIONS = 4


def consumer(server, topic, group):
    return KafkaConsumer(
        topic,
        bootstrap_servers=server,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=500,
    )


def produce(server, topic, first, count):
    producer = KafkaProducer(bootstrap_servers=server, acks="all", linger_ms=5)
    futures = [
        producer.send(topic, key=b"k%d" % n, value=b"v%d" % n, headers=[("n", b"%d" % n)], partition=n % PARTITIONS)
        for n in range(first, first + count)
    ]
    offsets = [future.get(timeout=30).offset for future in futures]
    producer.close()
    return offsets


def poll(client, seen):
    for records in client.poll(timeout_ms=200).values():
        for record in records:
            check(record.headers == [("n", record.value[1:])], f"headers of {record}")
            seen.append(record.value)


class Member(threading.Thread):
    """A consumer on its own thread, since both must poll while they rebalance."""

    def __init__(self, server, topic, group):
        super().__init__(daemon=True)
        self.client = consumer(server, topic, group)
        self.seen = []
        self.committed = 0
        self.assigned = set()
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.is_set():
            poll(self.client, self.seen)
            self.assigned = self.client.assignment()
            if self.seen:
                self.commit()
        self.client.close()

    def commit(self):
        try:
            self.client.commit()
            self.committed = len(self.seen)
        except RebalanceInProgressError:
            pass  # it began after the poll; the client asks for another poll, and a commit after that


def main():
    server = address()
    topic, group = unique("kp"), unique("kp-group")
    admin = KafkaAdminClient(bootstrap_servers=server)
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    offsets = produce(server, topic, 0, COUNT)
    check(sorted(offsets) == sorted(list(range(COUNT // PARTITIONS)) * PARTITIONS), f"offsets {offsets}")

    one = Member(server, topic, group)
    one.start()
    # What is not committed when another one comes is read again.
    until(lambda: one.committed == COUNT, "the first consumer reads everything")
    check(len(one.assigned) == PARTITIONS, f"alone it has every partition, not {one.assigned}")

    two = Member(server, topic, group)
    two.start()
    half = PARTITIONS // 2
    until(lambda: len(one.assigned) == half and len(two.assigned) == half, "two consumers share")
    produce(server, topic, COUNT, COUNT)
    until(lambda: len(one.seen) + len(two.seen) == 2 * COUNT, "both read the rest")
    check(len(two.seen) > 0, "the second consumer got its share")
    values = sorted(one.seen + two.seen)
    check(values == sorted(b"v%d" % n for n in range(2 * COUNT)), "each record once")

    two.stopping.set()
    two.join()
    until(lambda: len(one.assigned) == PARTITIONS, "the first takes over when the second leaves")
    one.stopping.set()
    one.join()

    late = []
    client = consumer(server, topic, group)
    until(lambda: len(client.assignment()) == PARTITIONS, "the group starts again", lambda: poll(client, late))
    poll(client, late)
    check(late == [], f"the committed offsets hold, but {len(late)} records came again")
    ends = client.end_offsets(list(client.assignment()))
    check(sum(ends.values()) == 2 * COUNT, f"end offsets {ends}")
    client.close()
    listed = [group_listed.group_id if hasattr(group_listed, "group_id") else str(group_listed) for group_listed in admin.list_groups()]
    check(any(group in str(name) for name in listed), f"the group is listed among {listed}")
    admin.delete_topics([topic])
    print("ok: kafka-python group")


main()
