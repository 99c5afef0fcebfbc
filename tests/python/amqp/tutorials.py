"""The six tutorials of RabbitMQ with pika: `tutorials.py HOST PORT`. Ends with 0 when all went as they say."""
import sys
import threading
import time
import uuid

import pika

HOST, PORT = sys.argv[1], int(sys.argv[2])


def connect():
    return pika.BlockingConnection(pika.ConnectionParameters(HOST, PORT, heartbeat=10))


def take(channel, queue, count, ack=False, seconds=10):
    """The next `count` messages of a queue."""
    got = []
    for method, properties, body in channel.consume(queue, auto_ack=not ack, inactivity_timeout=seconds):
        if method is None:
            break
        if ack:
            channel.basic_ack(method.delivery_tag)
        got.append((method, properties, body))
        if len(got) == count:
            break
    channel.cancel()
    assert len(got) == count, f"{len(got)} of {count} messages from {queue}"
    return got


def hello():
    with connect() as connection:
        channel = connection.channel()
        channel.queue_declare("hello")
        channel.basic_publish("", "hello", b"Hello World!")
        assert take(channel, "hello", 1)[0][2] == b"Hello World!"
        channel.queue_delete("hello")


def work_queues():
    with connect() as publisher, connect() as first, connect() as second:
        channel = publisher.channel()
        channel.queue_declare("task_queue", durable=True)
        channel.queue_purge("task_queue")
        channel.confirm_delivery()
        workers = []
        for connection in (first, second):
            worker = connection.channel()
            worker.queue_declare("task_queue", durable=True)
            worker.basic_qos(prefetch_count=1)
            got = []
            worker.basic_consume(
                "task_queue",
                lambda ch, method, properties, body, got=got: (got.append(body), ch.basic_ack(method.delivery_tag)),
            )
            workers.append((connection, got))
        for n in range(20):
            channel.basic_publish("", "task_queue", b"%d" % n, pika.BasicProperties(delivery_mode=2))
        until = time.time() + 10
        while sum(len(got) for _, got in workers) < 20 and time.time() < until:
            for connection, _ in workers:
                connection.process_data_events(0.05)
        bodies = sorted(int(body) for _, got in workers for body in got)
        assert bodies == list(range(20)), bodies
        assert all(got for _, got in workers), "both workers got work"
        channel.queue_delete("task_queue")


def unacked_comes_back():
    with connect() as one:
        channel = one.channel()
        channel.queue_declare("back", durable=True)
        channel.queue_purge("back")
        for n in range(5):
            channel.basic_publish("", "back", b"%d" % n, pika.BasicProperties(delivery_mode=2))
        other = connect()
        worker = other.channel()
        method, _, body = worker.basic_get("back")
        assert body == b"0" and not method.redelivered
        other.close()
        got = take(channel, "back", 5)
        assert [body for _, _, body in got] == [b"0", b"1", b"2", b"3", b"4"]
        assert [method.redelivered for method, _, _ in got] == [True, False, False, False, False]
        channel.queue_delete("back")


def publish_subscribe():
    with connect() as connection:
        channel = connection.channel()
        channel.exchange_declare("logs", "fanout")
        queues = []
        for _ in range(3):
            name = channel.queue_declare("", exclusive=True).method.queue
            assert name.startswith("amq.gen-"), name
            channel.queue_bind(name, "logs")
            queues.append(name)
        channel.basic_publish("logs", "", b"info: Hello World!")
        for name in queues:
            assert take(channel, name, 1)[0][2] == b"info: Hello World!"
        channel.exchange_delete("logs")


def routing():
    with connect() as connection:
        channel = connection.channel()
        channel.exchange_declare("direct_logs", "direct")
        errors = channel.queue_declare("", exclusive=True).method.queue
        everything = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(errors, "direct_logs", "error")
        for severity in ("info", "warning", "error"):
            channel.queue_bind(everything, "direct_logs", severity)
        for severity in ("info", "error", "warning", "debug"):
            channel.basic_publish("direct_logs", severity, severity.encode())
        assert [body for _, _, body in take(channel, errors, 1)] == [b"error"]
        assert [body for _, _, body in take(channel, everything, 3)] == [b"info", b"error", b"warning"]
        channel.exchange_delete("direct_logs")


def topics():
    with connect() as connection:
        channel = connection.channel()
        channel.exchange_declare("topic_logs", "topic")
        patterns = {"#": 4, "kern.*": 2, "*.critical": 2, "kern.#": 3}
        queues = {}
        for pattern in patterns:
            queues[pattern] = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(queues[pattern], "topic_logs", pattern)
        for key in ("kern.critical", "kern.info", "kern", "cron.critical"):
            channel.basic_publish("topic_logs", key, key.encode())
        for pattern, count in patterns.items():
            got = take(channel, queues[pattern], count)
            assert all(method.routing_key.encode() == body for method, _, body in got)
            assert channel.queue_declare(queues[pattern], passive=True).method.message_count == 0, pattern
        channel.exchange_delete("topic_logs")


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def rpc_server(ready, stop):
    with connect() as connection:
        channel = connection.channel()
        channel.queue_declare("rpc_queue")

        def on_request(ch, method, properties, body):
            answer = str(fib(int(body))).encode()
            reply = pika.BasicProperties(correlation_id=properties.correlation_id)
            ch.basic_publish("", properties.reply_to, answer, reply)
            ch.basic_ack(method.delivery_tag)

        channel.basic_qos(prefetch_count=1)
        channel.basic_consume("rpc_queue", on_request)
        ready.set()
        while not stop.is_set():
            connection.process_data_events(0.05)
        channel.queue_delete("rpc_queue")


def rpc():
    ready, stop = threading.Event(), threading.Event()
    server = threading.Thread(target=rpc_server, args=(ready, stop))
    server.start()
    try:
        assert ready.wait(10)
        for reply_queue in ("", "amq.rabbitmq.reply-to"):
            with connect() as connection:
                channel = connection.channel()
                if not reply_queue:
                    reply_queue = channel.queue_declare("", exclusive=True).method.queue
                answers = {}
                channel.basic_consume(
                    reply_queue,
                    lambda ch, method, properties, body: answers.update({properties.correlation_id: body}),
                    auto_ack=True,
                )
                wanted = str(uuid.uuid4())
                properties = pika.BasicProperties(reply_to=reply_queue, correlation_id=wanted)
                channel.basic_publish("", "rpc_queue", b"15", properties)
                until = time.time() + 10
                while wanted not in answers and time.time() < until:
                    connection.process_data_events(0.1)
                assert answers.get(wanted) == b"610", answers
    finally:
        stop.set()
        server.join()


for tutorial in (hello, work_queues, unacked_comes_back, publish_subscribe, routing, topics, rpc):
    tutorial()
    print("ok", tutorial.__name__, flush=True)
