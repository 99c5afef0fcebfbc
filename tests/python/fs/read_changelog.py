"""kafka-python reads a filesystem's changelog up to the record of the name LAST, and prints what it has read, one record a line."""

import json
import sys
import time

from kafka import KafkaConsumer

# For a hang; nothing is measured.
DEADLINE_S = 120


def main(address, topic, last):
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=address,
        group_id="readers-of-changes",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    records = []
    done = False
    end = time.monotonic() + DEADLINE_S
    while not done and time.monotonic() < end:
        for polled in consumer.poll(timeout_ms=500).values():
            for record in polled:
                change = json.loads(record.value)
                assert record.key.decode() == change["target"], record
                done = done or change.get("name") == last
                records.append(record.value.decode())
    consumer.commit()
    consumer.close()
    print("\n".join(records))
    if not done:
        sys.exit(f"FAILED: {len(records)} records in {DEADLINE_S} s, and none of them tells of {last}")


main(sys.argv[1], sys.argv[2], sys.argv[3])
