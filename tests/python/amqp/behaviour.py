"""What RabbitMQ does and no specification says: `behaviour.py HOST PORT`. Ends with 0 when all is the same."""
import sys
import time

import pika

HOST, PORT = sys.argv[1], int(sys.argv[2])


def connect(**kw):
    return pika.BlockingConnection(pika.ConnectionParameters(HOST, PORT, **kw))


def fill(channel, queue, count, **kw):
    channel.queue_delete(queue)
    channel.queue_declare(queue, **kw)
    for n in range(1, count + 1):
        channel.basic_publish("", queue, str(n).encode())


def drain(channel, queue):
    """Bodies, with `*` when redelivered."""
    got = []
    while True:
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return got
        got.append(body.decode() + "*" * method.redelivered)


def count(channel, queue):
    return channel.queue_declare(queue, passive=True).method.message_count


def wait_for(channel, queue, wanted, seconds=5):
    until = time.time() + seconds
    while count(channel, queue) != wanted and time.time() < until:
        time.sleep(0.02)
    assert count(channel, queue) == wanted, (count(channel, queue), wanted)


def requeue_to_the_original_position(connection):
    channel = connection.channel()
    fill(channel, "order", 5)
    tags = [channel.basic_get("order")[0].delivery_tag for _ in range(3)]
    for at in (2, 0, 1):
        channel.basic_nack(tags[at])
    assert drain(channel, "order") == ["1*", "2*", "3*", "4", "5"]

    fill(channel, "order", 5)
    other = connection.channel()
    tags = [other.basic_get("order")[0].delivery_tag for _ in range(3)]
    other.basic_nack(tags[1])
    assert drain(channel, "order") == ["2*", "4", "5"]
    other.close()
    assert drain(channel, "order") == ["1*", "3*"]
    channel.queue_delete("order")


def cancel_keeps_unacked(connection):
    channel = connection.channel()
    fill(channel, "cancel", 5)
    worker = connection.channel()
    worker.basic_qos(prefetch_count=3)
    tag = worker.basic_consume("cancel", lambda *_: None)
    wait_for(channel, "cancel", 2)
    # pika itself gives back what its callback has not seen.
    connection.process_data_events(0.2)
    worker.basic_cancel(tag)
    assert count(channel, "cancel") == 2
    worker.close()
    wait_for(channel, "cancel", 5)
    channel.queue_delete("cancel")


def prefetch(connection):
    channel = connection.channel()
    fill(channel, "qos", 10)
    worker = connection.channel()
    worker.basic_qos(prefetch_count=2)
    worker.basic_consume("qos", lambda *_: None)
    worker.basic_consume("qos", lambda *_: None)
    worker.basic_qos(prefetch_count=7)
    wait_for(channel, "qos", 6)
    worker.close()
    wait_for(channel, "qos", 10)

    worker = connection.channel()
    worker.basic_qos(prefetch_count=3, global_qos=True)
    worker.basic_consume("qos", lambda *_: None)
    worker.basic_consume("qos", lambda *_: None)
    wait_for(channel, "qos", 7)
    worker.basic_qos(prefetch_count=5, global_qos=True)
    wait_for(channel, "qos", 5)
    worker.close()
    wait_for(channel, "qos", 10)

    worker = connection.channel()
    worker.basic_qos(prefetch_count=1)
    worker.basic_consume("qos", lambda *_: None, auto_ack=True)
    wait_for(channel, "qos", 0)
    worker.close()
    channel.queue_delete("qos")


def unroutable_returns_before_it_confirms(connection):
    channel = connection.channel()
    channel.confirm_delivery()
    try:
        channel.basic_publish("", "nowhere", b"x", mandatory=True)
        raise AssertionError("a mandatory message to nowhere must come back")
    except pika.exceptions.UnroutableError as error:
        assert error.messages[0].method.reply_code == 312
        assert error.messages[0].body == b"x"
    channel.queue_delete("tight")
    channel.queue_declare("tight", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.basic_publish("", "tight", b"1")
    try:
        channel.basic_publish("", "tight", b"2")
        raise AssertionError("a full queue must refuse")
    except pika.exceptions.NackError:
        pass
    channel.queue_delete("tight")


def dead_letters(connection):
    channel = connection.channel()
    for queue in ("dead", "short", "expiring", "rejecting"):
        channel.queue_delete(queue)
    channel.exchange_declare("dlx", "topic")
    channel.queue_declare("dead")
    channel.queue_bind("dead", "dlx", "#")
    dlx = {"x-dead-letter-exchange": "dlx"}
    fill(channel, "short", 3, arguments={**dlx, "x-max-length": 2})
    assert drain(channel, "short") == ["2", "3"]
    _, properties, body = channel.basic_get("dead", auto_ack=True)
    assert body == b"1"
    death = properties.headers["x-death"][0]
    assert (death["count"], death["reason"], death["queue"], death["exchange"]) == (1, "maxlen", "short", "")
    assert death["routing-keys"] == ["short"] and "time" in death
    assert properties.headers["x-first-death-reason"] == "maxlen"

    channel.queue_declare("expiring", arguments={**dlx, "x-dead-letter-routing-key": "other"})
    channel.basic_publish("", "expiring", b"e", pika.BasicProperties(expiration="20"))
    wait_for(channel, "dead", 1)
    method, properties, _ = channel.basic_get("dead", auto_ack=True)
    assert method.routing_key == "other" and properties.expiration is None
    assert properties.headers["x-death"][0]["original-expiration"] == "20"

    fill(channel, "rejecting", 1, arguments=dlx)
    method, _, _ = channel.basic_get("rejecting")
    channel.basic_reject(method.delivery_tag, requeue=False)
    wait_for(channel, "dead", 1)
    assert drain(channel, "dead") == ["1"]
    for queue in ("dead", "short", "expiring", "rejecting"):
        channel.queue_delete(queue)
    channel.exchange_delete("dlx")


def time_to_live(connection):
    channel = connection.channel()
    for queue in ("ttl", "gone"):
        channel.queue_delete(queue)
    channel.queue_declare("ttl", arguments={"x-message-ttl": 30})
    channel.basic_publish("", "ttl", b"x")
    wait_for(channel, "ttl", 0)
    channel.queue_delete("ttl")
    channel.queue_declare("ttl")
    channel.basic_publish("", "ttl", b"never", pika.BasicProperties(expiration="0"))
    assert count(channel, "ttl") == 0
    got = []
    channel.basic_consume("ttl", lambda ch, method, properties, body: got.append(body), auto_ack=True)
    channel.basic_publish("", "ttl", b"now", pika.BasicProperties(expiration="0"))
    until = time.time() + 5
    while not got and time.time() < until:
        connection.process_data_events(0.1)
    assert got == [b"now"], got
    channel.queue_delete("ttl")
    other = connection.channel()
    other.queue_declare("gone", arguments={"x-expires": 50})
    until = time.time() + 5
    while time.time() < until:
        time.sleep(0.2)
        try:
            probe = connection.channel()
            probe.queue_bind("gone", "amq.direct", "k")
            probe.close()
        except pika.exceptions.ChannelClosedByBroker as error:
            assert error.reply_code == 404
            return
    raise AssertionError("x-expires")


def priorities(connection):
    channel = connection.channel()
    channel.queue_delete("priority")
    channel.queue_declare("priority", durable=True, arguments={"x-max-priority": 10})
    for n in (1, 9, 5, 200, 5):
        channel.basic_publish("", "priority", str(n).encode(), pika.BasicProperties(priority=n, delivery_mode=2))
    assert drain(channel, "priority") == ["200", "9", "5", "5", "1"]
    channel.queue_delete("priority")


def headers_and_copies(connection):
    channel = connection.channel()
    names = {}
    for match in ("all", "any", "any-with-x"):
        names[match] = channel.queue_declare("", exclusive=True).method.queue
        arguments = {"x-match": match, "a": 1, "b": "two", "x-c": True}
        channel.queue_bind(names[match], "amq.headers", arguments=arguments)
    for headers in ({"a": 1, "b": "two"}, {"a": 1}, {"x-c": True}, {"a": 2}):
        channel.basic_publish("amq.headers", "", str(headers).encode(), pika.BasicProperties(headers=headers))
    assert [len(drain(channel, names[match])) for match in names] == [1, 2, 3]
    # One copy for each queue, however many bindings match.
    queue = channel.queue_declare("", exclusive=True).method.queue
    for key in ("a.*", "#", "*.b"):
        channel.queue_bind(queue, "amq.topic", key)
    channel.basic_publish("amq.topic", "a.b", b"once")
    assert drain(channel, queue) == ["once"]
    copies = pika.BasicProperties(headers={"CC": [queue], "BCC": [names["any"]]})
    channel.basic_publish("", names["all"], b"cc", copies)
    assert [drain(channel, name) for name in (names["all"], queue, names["any"])] == [["cc"], ["cc"], ["cc"]]


def exchanges_to_exchanges(connection):
    channel = connection.channel()
    for name in ("front", "back", "rest"):
        channel.exchange_delete(name)
    channel.exchange_declare("rest", "fanout")
    channel.exchange_declare("front", "direct", arguments={"alternate-exchange": "rest"})
    channel.exchange_declare("back", "fanout", auto_delete=True)
    channel.exchange_bind("back", "front", "k")
    queue = channel.queue_declare("", exclusive=True).method.queue
    rest = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "back")
    channel.queue_bind(rest, "rest")
    channel.basic_publish("front", "k", b"through")
    channel.basic_publish("front", "other", b"alternate")
    assert drain(channel, queue) == ["through"] and drain(channel, rest) == ["alternate"]
    channel.queue_unbind(queue, "back")
    try:
        probe = connection.channel()
        probe.exchange_declare("back", passive=True)
        raise AssertionError("an auto-delete exchange goes with its last binding")
    except pika.exceptions.ChannelClosedByBroker as error:
        assert error.reply_code == 404
    for name in ("front", "rest"):
        channel.exchange_delete(name)


def large_and_empty_bodies(connection):
    with connect(frame_max=4096) as small:
        channel = small.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        for body in (b"", b"x" * 300_000, bytes(range(256)) * 20_000):
            channel.basic_publish("", queue, body)
            assert channel.basic_get(queue, auto_ack=True)[2] == body


def queues_that_go(connection):
    channel = connection.channel()
    channel.queue_declare("auto", auto_delete=True)
    worker = connection.channel()
    tag = worker.basic_consume("auto", lambda *_: None)
    worker.basic_cancel(tag)
    try:
        connection.channel().queue_declare("auto", passive=True)
        raise AssertionError("an auto-delete queue goes with its last consumer")
    except pika.exceptions.ChannelClosedByBroker as error:
        assert error.reply_code == 404
    # A consumer is told when its queue is deleted.
    channel.queue_declare("taken")
    told = []
    worker = connection.channel()
    worker.add_on_cancel_callback(told.append)
    worker.basic_consume("taken", lambda *_: None)
    channel.queue_delete("taken")
    connection.process_data_events(0.3)
    assert len(told) == 1


connection = connect()
for check in (
    requeue_to_the_original_position,
    cancel_keeps_unacked,
    prefetch,
    unroutable_returns_before_it_confirms,
    dead_letters,
    time_to_live,
    priorities,
    headers_and_copies,
    exchanges_to_exchanges,
    large_and_empty_bodies,
    queues_that_go,
):
    check(connection)
    print("ok", check.__name__, flush=True)
connection.close()
