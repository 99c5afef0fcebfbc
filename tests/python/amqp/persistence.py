"""Messages through a restart, in two phases.

`persistence.py HOST PORT publish` confirms 500 persistent messages, acknowledges every third of the first 100, leaves ten
unacknowledged, and prints what must come back. Kill the broker in whatever way, start it, and
`persistence.py HOST PORT verify` finds exactly that.
"""
import sys

import pika

HOST, PORT, PHASE = sys.argv[1], int(sys.argv[2]), sys.argv[3]
QUEUE, EXCHANGE, TOTAL, SEEN = "kept", "kept-exchange", 500, 100
PERSISTENT = pika.BasicProperties(delivery_mode=2, headers={"kind": "kept"}, content_type="text/plain")


def settled(n):
    return n < SEEN and n % 3 == 0


def publish(channel):
    channel.queue_delete(QUEUE)
    channel.exchange_declare(EXCHANGE, "topic", durable=True)
    channel.queue_declare(QUEUE, durable=True, arguments={"x-max-length": 100_000})
    channel.queue_bind(QUEUE, EXCHANGE, "task.*")
    channel.confirm_delivery()
    for n in range(TOTAL):
        channel.basic_publish(EXCHANGE, f"task.{n}", b"body %d" % n, PERSISTENT, mandatory=True)
        if n % 10 == 0:
            channel.basic_publish(EXCHANGE, "task.transient", b"transient")
    seen = 0
    while seen < SEEN:
        method, _, body = channel.basic_get(QUEUE)
        if body == b"transient":
            channel.basic_ack(method.delivery_tag)
            continue
        assert body == b"body %d" % seen, body
        if settled(seen):
            channel.basic_ack(method.delivery_tag)
        seen += 1
    # A round trip: the broker has handled every acknowledgement.
    channel.queue_declare(QUEUE, passive=True)


def verify(channel):
    wanted = [n for n in range(TOTAL) if not settled(n)]
    count = channel.queue_declare(QUEUE, passive=True).method.message_count
    assert count == len(wanted), f"{count} messages, not {len(wanted)}"
    for n in wanted:
        method, properties, body = channel.basic_get(QUEUE)
        assert body == b"body %d" % n, (n, body)
        assert method.routing_key == f"task.{n}" and method.exchange == EXCHANGE
        assert properties.headers == {"kind": "kept"} and properties.delivery_mode == 2
        assert method.redelivered == (n < SEEN), (n, method.redelivered)
        channel.basic_ack(method.delivery_tag)
    assert channel.basic_get(QUEUE)[0] is None
    channel.basic_publish(EXCHANGE, "task.again", b"again")
    assert channel.basic_get(QUEUE, auto_ack=True)[2] == b"again", "the binding outlived the restart"
    channel.queue_delete(QUEUE)
    channel.exchange_delete(EXCHANGE)


connection = pika.BlockingConnection(pika.ConnectionParameters(HOST, PORT))
if PHASE == "publish":
    publish(connection.channel())
    print("published; kill the broker now", flush=True)
else:
    verify(connection.channel())
    print("ok", flush=True)
connection.close()
