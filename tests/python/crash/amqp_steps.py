"""Durable queues with pika, in steps between which Kiln is killed.

amqp_steps.py publish QUEUE FIRST COUNT   persistent, each confirmed
amqp_steps.py take QUEUE COUNT            takes and acknowledges; prints the bodies, one per line
amqp_steps.py hold QUEUE COUNT            takes without acknowledging, prints "holding", and stays until it is killed
amqp_steps.py redelivered QUEUE COUNT     takes and acknowledges; fails unless each is marked as redelivered
"""

import os
import sys
import time

import pika

PATIENCE_S = 60


def connect():
    host, port = os.environ["AMQP"].rsplit(":", 1)
    return pika.BlockingConnection(pika.ConnectionParameters(host, int(port), heartbeat=0))


def publish(queue, first, count):
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    channel.confirm_delivery()
    for n in range(int(first), int(first) + int(count)):
        properties = pika.BasicProperties(delivery_mode=2)
        channel.basic_publish("", queue, str(n).encode(), properties, mandatory=True)
    connection.close()


def get(channel, queue, count):
    """COUNT messages by basic.get: no prefetch that could hide one."""
    until = time.monotonic() + PATIENCE_S
    while count > 0:
        method, _, body = channel.basic_get(queue)
        if method is None:
            if time.monotonic() > until:
                sys.exit(f"{count} messages short")
            time.sleep(0.05)
            continue
        count -= 1
        yield method, body


def take(queue, count):
    connection = connect()
    channel = connection.channel()
    for method, body in get(channel, queue, int(count)):
        print(body.decode())
        channel.basic_ack(method.delivery_tag)
    connection.close()


def hold(queue, count):
    connection = connect()
    channel = connection.channel()
    held = list(get(channel, queue, int(count)))
    print("holding", len(held), flush=True)
    try:
        connection.sleep(3600)
    except pika.exceptions.AMQPError:
        pass


def redelivered(queue, count):
    connection = connect()
    channel = connection.channel()
    for method, body in get(channel, queue, int(count)):
        if not method.redelivered:
            sys.exit(f"{body} is not marked as redelivered")
        print(body.decode())
        channel.basic_ack(method.delivery_tag)
    connection.close()


if __name__ == "__main__":
    {"publish": publish, "take": take, "hold": hold, "redelivered": redelivered}[sys.argv[1]](*sys.argv[2:])
