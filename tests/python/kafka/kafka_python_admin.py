"""kafka-python's admin: settings of topics are changed one by one, replaced, refused, and shown."""

from kafka.admin import ConfigResource, KafkaAdminClient, NewTopic

from common import address, check, unique


def main():
    topic = unique("kp-admin")
    admin = KafkaAdminClient(bootstrap_servers=address())
    admin.create_topics([NewTopic(topic, 2, 1)])

    def alter(settings, incremental=True):
        return admin.alter_configs([ConfigResource("TOPIC", topic, settings)], incremental=incremental)["topic"][topic]

    def shown():
        settings = admin.describe_configs([ConfigResource("TOPIC", topic)], config_filter="all")["topic"][topic]
        return {key: setting["value"] for key, setting in settings.items()}

    first = shown()
    check(alter({"retention.ms": "60000", "cleanup.policy": "delete"}) == "OK", "changed")
    check(alter({"max.message.bytes": "5000"}) == "OK", "another is changed")
    check((shown()["retention.ms"], shown()["max.message.bytes"]) == ("60000", "5000"), f"both hold: {shown()}")
    check(alter({"segment.bytes": "1048576"}, incremental=False) == "OK", "replaced")
    check(shown()["segment.bytes"] == "1048576", f"as replaced: {shown()}")
    deleted = {key: ("DELETE", None) for key in ("retention.ms", "max.message.bytes", "segment.bytes")}
    check(alter(deleted) == "OK", "deleted")
    check(shown() == first, f"back to the defaults: {shown()}")
    refused = alter({"cleanup.policy": "compact"})
    check("compaction is not served" in refused, f"compaction is refused: {refused}")
    check(shown() == first, "what is refused changes nothing")
    admin.delete_topics([topic])
    admin.close()
    print("ok: kafka-python admin")


main()
