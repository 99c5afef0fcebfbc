"""confluent-kafka's AdminClient: topics, settings, partitions, groups, and the errors for what is refused."""

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)

from common import address, check, unique, until


def refused(futures, code):
    """Every future fails with this code."""
    for name, future in futures.items():
        try:
            future.result(30)
        except KafkaException as error:
            got = error.args[0]
            check(got.code() == code, f"{name}: {got} instead of {code}")
            continue
        check(False, f"{name} was not refused with {code}")


def alter_settings(server, admin, topic):
    """Settings are changed one by one, replaced and refused, and hold at once."""

    def resource(*changes, name=topic, kind=ConfigResource.Type.TOPIC):
        operations = AlterConfigOpType
        entries = [
            ConfigEntry(key, value, incremental_operation=operations.DELETE if value is None else operations.SET)
            for key, value in changes
        ]
        return ConfigResource(kind, name, incremental_configs=entries)

    def alter(one, **how):
        admin.incremental_alter_configs([one], **how)[one].result(30)

    def shown():
        asked = ConfigResource(ConfigResource.Type.TOPIC, topic)
        return admin.describe_configs([asked])[asked].result(30)

    def deliver(size):
        errors = []
        producer = Producer({"bootstrap.servers": server, "message.timeout.ms": 20000})
        producer.produce(topic, value=b"x" * size, partition=1, on_delivery=lambda error, _: errors.append(error))
        check(producer.flush(30) == 0, "flush")
        return errors[0]

    alter(resource(("max.message.bytes", "3000"), ("cleanup.policy", "delete")))
    check(shown()["max.message.bytes"].value == "3000", "changed")
    check(shown()["retention.ms"].value == "3600000", "what is not named stays")
    check(deliver(4000).code() == KafkaError.MSG_SIZE_TOO_LARGE, "the limit holds at once")
    alter(resource(("max.message.bytes", "9000")), validate_only=True)
    check(deliver(4000) is not None, "a trial changes nothing")
    alter(resource(("max.message.bytes", None)))
    check(shown()["max.message.bytes"].is_default and deliver(4000) is None, "back to the default")
    for wrong in [resource(("cleanup.policy", "compact")), resource(("retention.ms", "soon")), resource(("colour", "red"))]:
        refused(admin.incremental_alter_configs([wrong]), KafkaError.INVALID_CONFIG)
    missing = resource(("retention.ms", "1"), name=unique("missing"))
    refused(admin.incremental_alter_configs([missing]), KafkaError.UNKNOWN_TOPIC_OR_PART)
    node = resource(("num.partitions", "7"), name="1", kind=ConfigResource.Type.BROKER)
    refused(admin.incremental_alter_configs([node]), KafkaError.INVALID_REQUEST)

    whole = ConfigResource(ConfigResource.Type.TOPIC, topic, set_config={"retention.bytes": "1000000"})
    admin.alter_configs([whole])[whole].result(30)
    check(shown()["retention.bytes"].value == "1000000", "replaced")
    check(shown()["retention.ms"].is_default, "what is not named goes back to its default")


def main():
    server = address()
    topic = unique("admin")
    admin = AdminClient({"bootstrap.servers": server})

    settings = {"retention.ms": "3600000", "segment.bytes": "1048576", "cleanup.policy": "delete"}
    admin.create_topics([NewTopic(topic, 2, 1, config=settings)])[topic].result(30)
    refused(admin.create_topics([NewTopic(topic, 2, 1)]), KafkaError.TOPIC_ALREADY_EXISTS)
    refused(admin.create_topics([NewTopic(unique("rf"), 1, 3)]), KafkaError.INVALID_REPLICATION_FACTOR)
    refused(admin.create_topics([NewTopic("no/slash", 1, 1)]), KafkaError.TOPIC_EXCEPTION)
    compact = NewTopic(unique("compact"), 1, 1, config={"cleanup.policy": "compact"})
    refused(admin.create_topics([compact]), KafkaError.INVALID_CONFIG)
    trial = unique("trial")
    admin.create_topics([NewTopic(trial, 1, 1)], validate_only=True)[trial].result(30)

    metadata = admin.list_topics(timeout=30)
    check(len(metadata.topics[topic].partitions) == 2, "two partitions")
    check(trial not in metadata.topics, "a trial creates nothing")

    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    described = admin.describe_configs([resource])[resource].result(30)
    check(described["retention.ms"].value == "3600000", f"{described['retention.ms']}")
    check(described["max.message.bytes"].is_default, "a setting left alone is a default")
    node = ConfigResource(ConfigResource.Type.BROKER, "1")
    check("num.partitions" in admin.describe_configs([node])[node].result(30), "the broker's settings")

    alter_settings(server, admin, topic)

    admin.create_partitions([NewPartitions(topic, 5)])[topic].result(30)
    until(lambda: len(admin.list_topics(timeout=30).topics[topic].partitions) == 5, "five partitions")
    refused(admin.create_partitions([NewPartitions(topic, 1)]), KafkaError.INVALID_PARTITIONS)

    cluster = admin.describe_cluster().result(30)
    check(len(cluster.nodes) == 1, f"{cluster}")

    producer = Producer({"bootstrap.servers": server})
    for n in range(10):
        producer.produce(topic, value=b"%d" % n, partition=0)
    check(producer.flush(30) == 0, "flush")
    where = TopicPartition(topic, 0)
    ends = admin.list_offsets({where: OffsetSpec.latest()})[where].result(30)
    check(ends.offset == 10, f"latest {ends.offset}")
    newest = admin.list_offsets({where: OffsetSpec.max_timestamp()})[where].result(30)
    check(0 <= newest.offset < 10, f"max timestamp {newest.offset}")

    deleted = admin.delete_records([TopicPartition(topic, 0, 4)])
    check(list(deleted.values())[0].result(30).low_watermark == 4, "records deleted")
    consumer = Consumer({"bootstrap.servers": server, "group.id": unique("g"), "enable.auto.commit": False})
    check(consumer.get_watermark_offsets(where, timeout=30) == (4, 10), "the start has moved")

    group = unique("admin-group")
    member = Consumer({"bootstrap.servers": server, "group.id": group, "auto.offset.reset": "earliest"})
    member.subscribe([topic])
    until(lambda: len(member.assignment()) == 5, "assignment", lambda: member.poll(0.2))
    listed = [one.group_id for one in admin.list_consumer_groups().result(30).valid]
    check(group in listed, f"{group} among {listed}")
    described = admin.describe_consumer_groups([group])[group].result(30)
    check(len(described.members) == 1 and described.state.name == "STABLE", f"{described.state}")
    refused(admin.delete_consumer_groups([group]), KafkaError.NON_EMPTY_GROUP)
    member.commit(offsets=[TopicPartition(topic, 0, 7)], asynchronous=False)
    member.close()
    asked = TopicPartition(topic, 0)
    committed = Consumer({"bootstrap.servers": server, "group.id": group}).committed([asked], timeout=30)
    check(committed[0].offset == 7, f"committed {committed}")
    admin.delete_consumer_groups([group])[group].result(30)

    consumer.close()
    admin.delete_topics([topic])[topic].result(30)
    check(topic not in admin.list_topics(timeout=30).topics, "deleted")
    refused(admin.delete_topics([topic]), KafkaError.UNKNOWN_TOPIC_OR_PART)
    print("ok: confluent-kafka admin")


main()
