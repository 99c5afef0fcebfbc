"""Many members, and members that come and go: `group_storm.py HOST:PORT [PID] [SECONDS]`.

Fifty consumers share a group; then one joins or leaves every 100 ms. Afterwards the group holds exactly the members
that stayed, and after them none. With the broker's PID, its memory is checked too.
"""

import random
import sys
import time

from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, NewTopic

from common import address, check, unique, until

MEMBERS = 50
PARTITIONS = 60
GROWTH_KIB_MAX = 64 << 10


def join(server, topic, group):
    settings = {"bootstrap.servers": server, "group.id": group, "session.timeout.ms": 6000, "log_level": 0}
    member = Consumer({**settings, "heartbeat.interval.ms": 500, "enable.auto.commit": False})
    member.subscribe([topic])
    return member


def memory_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def main():
    server = address()
    pid = sys.argv[2] if len(sys.argv) > 2 else None
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 20
    topic, group = unique("storm"), unique("storm-group")
    admin = AdminClient({"bootstrap.servers": server})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)

    def described():
        return admin.describe_consumer_groups([group])[group].result(30)

    def settled(members):
        """Every partition has one owner, and nobody is known but the members.

        While the last members still join, the partitions may be shared out among the first: that is not it yet.
        """

        def done():
            assigned = [(p.topic, p.partition) for member in members for p in member.assignment()]
            if not len(assigned) == len(set(assigned)) == PARTITIONS:
                return False
            now = described()
            return (len(now.members), now.state.name) == (len(members), "STABLE")

        def step():
            for member in members:
                member.poll(0)
            time.sleep(0.02)

        until(done, f"{len(members)} members share {PARTITIONS} partitions", step, deadline_s=120)

    members = [join(server, topic, group) for _ in range(MEMBERS)]
    settled(members)
    before = memory_kib(pid) if pid else 0

    choose = random.Random(7)
    end, changes = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for member in members:
            member.poll(0)
        if len(members) > MEMBERS - 10 and choose.random() < 0.5:
            members.pop(choose.randrange(len(members))).close()
        elif len(members) < MEMBERS + 10:
            members.append(join(server, topic, group))
        changes += 1
        time.sleep(0.1)
    settled(members)
    for member in members:
        member.close()
    until(lambda: len(described().members) == 0, "everybody has left")
    check(described().state.name in ("EMPTY", "DEAD"), f"{described().state}")
    if pid:
        grown = memory_kib(pid) - before
        print(f"resident: {before} KiB, {grown} KiB more after the storm")
        check(grown < GROWTH_KIB_MAX, f"{grown} KiB more than before")
    admin.delete_topics([topic])[topic].result(30)
    print(f"ok: {MEMBERS} members, {changes} changes")


main()
