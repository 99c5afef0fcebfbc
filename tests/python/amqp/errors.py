"""What RabbitMQ answers to misuse, row by row: `errors.py HOST PORT`. Ends with 0 when every answer is the same."""
import socket
import struct
import sys

import pika
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

HOST, PORT = sys.argv[1], int(sys.argv[2])
FAILED = []
Q = "queue 'n' in vhost '/'"


def check(name, got, wanted):
    if got != wanted:
        FAILED.append(name)
        print(f"FAIL {name}\n  wanted {wanted}\n  got    {got}", flush=True)


def connect(**kw):
    return pika.BlockingConnection(pika.ConnectionParameters(HOST, PORT, **kw))


def refused(use, **kw):
    """Code and text of the close that `use(channel)` brings about."""
    connection = connect(**kw)
    try:
        channel = connection.channel()
        use(channel)
        channel.queue_declare("", exclusive=True)
        return None
    except (ChannelClosedByBroker, ConnectionClosedByBroker) as error:
        return (error.reply_code, error.reply_text)
    finally:
        if connection.is_open:
            connection.close()


def channel_rows():
    clean = connect()
    admin = clean.channel()
    for name in ("n", "full"):
        admin.queue_delete(name)
    admin.exchange_delete("e")
    owner = connect()
    owner.channel().queue_declare("locked", exclusive=True)
    locked = (
        405,
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'locked' in vhost '/'. It could be originally "
        "declared on another connection or the exclusive property value does not match that of the original declaration.",
    )
    no_queue = (404, "NOT_FOUND - no queue 'x' in vhost '/'")
    no_exchange = (404, "NOT_FOUND - no exchange 'x' in vhost '/'")
    bad = lambda args: lambda ch: ch.queue_declare("bad", arguments=args)
    invalid = lambda arg, why: (406, f"PRECONDITION_FAILED - invalid arg '{arg}' for queue 'bad' in vhost '/': {why}")
    consume_twice = lambda ch: [ch.basic_consume("n", print, exclusive=True) for _ in range(2)]

    def nack_wrong(ch):
        ch.basic_nack(7)

    rows = [
        ("passive queue", lambda ch: ch.queue_declare("x", passive=True), no_queue),
        ("bind no queue", lambda ch: ch.queue_bind("x", "amq.direct", "k"), no_queue),
        ("bind no exchange", lambda ch: (ch.queue_declare("n"), ch.queue_bind("n", "x", "k")), no_exchange),
        ("consume", lambda ch: ch.basic_consume("x", print), no_queue),
        ("get", lambda ch: ch.basic_get("x"), no_queue),
        ("purge", lambda ch: ch.queue_purge("x"), no_queue),
        ("passive exchange", lambda ch: ch.exchange_declare("x", passive=True), no_exchange),
        ("publish", lambda ch: ch.basic_publish("x", "", b""), no_exchange),
        (
            "inequivalent durable",
            lambda ch: ch.queue_declare("n", durable=True),
            (406, f"PRECONDITION_FAILED - inequivalent arg 'durable' for {Q}: received 'true' but current is 'false'"),
        ),
        (
            "inequivalent argument",
            lambda ch: ch.queue_declare("n", arguments={"x-max-length": 1000}),
            (
                406,
                f"PRECONDITION_FAILED - inequivalent arg 'x-max-length' for {Q}: received the value '1000' of type "
                "'signedint' but current is none",
            ),
        ),
        (
            "inequivalent type",
            lambda ch: (ch.exchange_declare("e", "fanout"), ch.exchange_declare("e", "direct")),
            (
                406,
                "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'e' in vhost '/': received 'direct' but "
                "current is 'fanout'",
            ),
        ),
        ("locked declare", lambda ch: ch.queue_declare("locked", exclusive=True), locked),
        ("locked passive", lambda ch: ch.queue_declare("locked", passive=True), locked),
        ("locked consume", lambda ch: ch.basic_consume("locked", print), locked),
        ("locked delete", lambda ch: ch.queue_delete("locked"), locked),
        ("locked bind", lambda ch: ch.queue_bind("locked", "amq.direct", "k"), locked),
        ("locked purge", lambda ch: ch.queue_purge("locked"), locked),
        ("locked get", lambda ch: ch.basic_get("locked"), locked),
        ("publish to locked", lambda ch: ch.basic_publish("", "locked", b""), None),
        ("ttl type", bad({"x-message-ttl": "a"}), invalid("x-message-ttl", '"expected integer, got longstr"')),
        ("ttl negative", bad({"x-message-ttl": -1}), invalid("x-message-ttl", "{value_negative,-1}")),
        ("expires zero", bad({"x-expires": 0}), invalid("x-expires", "{value_zero,0}")),
        ("priority", bad({"x-max-priority": 256}), invalid("x-max-priority", "{max_value_exceeded,256}")),
        ("overflow", bad({"x-overflow": "foo"}), invalid("x-overflow", "invalid_overflow")),
        (
            "dlx key alone",
            bad({"x-dead-letter-routing-key": "k"}),
            invalid("x-dead-letter-routing-key", "routing_key_but_no_dlx_defined"),
        ),
        (
            "dlx type",
            bad({"x-dead-letter-exchange": 5}),
            (
                406,
                "PRECONDITION_FAILED - invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'bad' in "
                "vhost '/'",
            ),
        ),
        (
            "quorum",
            bad({"x-queue-type": "quorum"}),
            (406, "PRECONDITION_FAILED - invalid property 'non-durable' for queue 'bad' in vhost '/'"),
        ),
        (
            "amq queue",
            lambda ch: ch.queue_declare("amq.foo"),
            (403, "ACCESS_REFUSED - queue name 'amq.foo' contains reserved prefix 'amq.*'"),
        ),
        (
            "default exchange bind",
            lambda ch: ch.queue_bind("n", "", "k"),
            (403, "ACCESS_REFUSED - operation not permitted on the default exchange"),
        ),
        (
            "delete amq.direct",
            lambda ch: ch.exchange_delete("amq.direct"),
            (403, "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed"),
        ),
        (
            "internal",
            lambda ch: (ch.exchange_declare("i", internal=True, auto_delete=True), ch.basic_publish("i", "", b"")),
            (403, "ACCESS_REFUSED - cannot publish to internal exchange 'i' in vhost '/'"),
        ),
        (
            "if-empty",
            lambda ch: (ch.basic_publish("", "n", b""), ch.queue_delete("n", if_empty=True)),
            (406, f"PRECONDITION_FAILED - {Q} not empty"),
        ),
        (
            "if-unused",
            lambda ch: (ch.basic_consume("n", print), ch.queue_delete("n", if_unused=True)),
            (406, f"PRECONDITION_FAILED - {Q} in use"),
        ),
        (
            "exchange in use",
            lambda ch: (ch.queue_bind("n", "e", "k"), ch.exchange_delete("e", if_unused=True)),
            (406, "PRECONDITION_FAILED - exchange 'e' in vhost '/' in use"),
        ),
        ("exclusive use", consume_twice, (403, f"ACCESS_REFUSED - {Q} in exclusive use")),
        ("ack", lambda ch: ch.basic_ack(7), (406, "PRECONDITION_FAILED - unknown delivery tag 7")),
        ("nack", nack_wrong, (406, "PRECONDITION_FAILED - unknown delivery tag 7")),
        ("ack 0", lambda ch: ch.basic_ack(0), (406, "PRECONDITION_FAILED - unknown delivery tag 0")),
        ("ack 0 multiple", lambda ch: ch.basic_ack(0, multiple=True), None),
        (
            "expiration",
            lambda ch: ch.basic_publish("", "n", b"", pika.BasicProperties(expiration="abc")),
            (406, "PRECONDITION_FAILED - invalid expiration 'abc': no_integer"),
        ),
        (
            "negative expiration",
            lambda ch: ch.basic_publish("", "n", b"", pika.BasicProperties(expiration="-1")),
            (406, "PRECONDITION_FAILED - invalid expiration '-1': {value_negative,-1}"),
        ),
        (
            "user id",
            lambda ch: ch.basic_publish("", "n", b"", pika.BasicProperties(user_id="bob")),
            (406, "PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was 'guest'"),
        ),
        (
            "x-match",
            lambda ch: ch.queue_bind("n", "amq.headers", arguments={"x-match": "foo"}),
            (
                406,
                'PRECONDITION_FAILED - Invalid x-match field value <<"foo">>; expected all, any, all-with-x, or '
                "any-with-x",
            ),
        ),
        ("tx commit", lambda ch: ch.tx_commit(), (406, "PRECONDITION_FAILED - channel is not transactional")),
        (
            "confirm then tx",
            lambda ch: (ch.confirm_delivery(), ch.tx_select()),
            (406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode"),
        ),
        (
            "reply-to without consumer",
            lambda ch: ch.basic_publish("", "n", b"", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to")),
            (406, "PRECONDITION_FAILED - fast reply consumer does not exist"),
        ),
        (
            "reply-to ack",
            lambda ch: ch.basic_consume("amq.rabbitmq.reply-to", print),
            (406, "PRECONDITION_FAILED - reply consumer cannot acknowledge"),
        ),
        ("exchange type", lambda ch: ch.exchange_declare("t", "foo"), (503, "COMMAND_INVALID - invalid exchange type 'foo'")),
        ("prefetch size", lambda ch: ch.basic_qos(prefetch_size=1), (540, "NOT_IMPLEMENTED - prefetch_size!=0 (1)")),
        # What must not fail.
        ("delete missing queue", lambda ch: ch.queue_delete("x"), None),
        ("delete missing exchange", lambda ch: ch.exchange_delete("x"), None),
        ("unbind missing", lambda ch: ch.queue_unbind("n", "amq.direct", "nope"), None),
        ("unbind from missing exchange", lambda ch: ch.queue_unbind("n", "x", "nope"), None),
        ("cancel unknown", lambda ch: ch.basic_cancel("nobody"), None),
        ("passive, other flags", lambda ch: ch.queue_declare("n", passive=True, durable=True), None),
        ("unknown argument", lambda ch: ch.queue_declare("m", arguments={"x-foo": 1}, auto_delete=True), None),
    ]
    for name, use, wanted in rows:
        check(name, refused(use), wanted)
    owner.close()
    admin.queue_delete("n")
    admin.exchange_delete("e")
    clean.close()


# ---- the connection level, on a raw socket


def frame(kind, channel, payload, end=b"\xce"):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + end


def method(class_id, method_id, arguments=b""):
    return struct.pack(">HH", class_id, method_id) + arguments


def short(text):
    return bytes([len(text)]) + text.encode()


class Raw:
    def __init__(self, password="guest", vhost="/", auth_close=True, until="open", heartbeat=0, frame_max=4096):
        self.socket = socket.create_connection((HOST, PORT), timeout=10)
        self.pending = b""
        self.send(b"AMQP\0\0\x09\x01")
        assert self.method()[:2] == (10, 10)
        flag = short("authentication_failure_close") + b"t\x01" if auth_close else b""
        capabilities = short("capabilities") + b"F" + struct.pack(">I", len(flag)) + flag
        response = b"\0guest\0" + password.encode()
        arguments = struct.pack(">I", len(capabilities)) + capabilities + short("PLAIN")
        arguments += struct.pack(">I", len(response)) + response + short("en_US")
        self.send(frame(1, 0, method(10, 11, arguments)))
        if until == "start":
            return
        tune = self.method()
        check("tune", (tune[:2], struct.unpack(">HIH", tune[2])), ((10, 30), (2047, 131072, 60)))
        self.send(frame(1, 0, method(10, 31, struct.pack(">HIH", 10, frame_max, heartbeat))))
        self.send(frame(1, 0, method(10, 40, short(vhost) + b"\0\0")))
        if until == "tune":
            return
        assert self.method()[:2] == (10, 41)

    def send(self, data):
        self.socket.sendall(data)

    def read(self, n):
        while len(self.pending) < n:
            got = self.socket.recv(65536)
            if not got:
                raise EOFError
            self.pending += got
        data, self.pending = self.pending[:n], self.pending[n:]
        return data

    def frame(self):
        kind, channel, size = struct.unpack(">BHI", self.read(7))
        return kind, channel, self.read(size + 1)[:-1]

    def method(self):
        while True:
            kind, _, payload = self.frame()
            if kind == 1:
                return (*struct.unpack(">HH", payload[:4]), payload[4:])

    def close(self):
        """Code, text and the blamed method of the close that comes."""
        try:
            while True:
                class_id, method_id, arguments = self.method()
                if (class_id, method_id) in ((10, 50), (20, 40)):
                    code, length = struct.unpack(">HB", arguments[:3])
                    text = arguments[3 : 3 + length].decode()
                    return (code, text, struct.unpack(">HH", arguments[3 + length :]))
        except (EOFError, ConnectionResetError):
            return "gone"

    def opened(self, number=1):
        self.send(frame(1, number, method(20, 10, b"\0")))
        assert self.method()[:2] == (20, 11)
        return self


PUBLISH = method(60, 40, b"\0\0\0" + short("q") + b"\0")


def connection_rows():
    raw = socket.create_connection((HOST, PORT), timeout=10)
    raw.sendall(b"HTTP/1.1")
    check("protocol header", raw.recv(100), b"AMQP\0\0\x09\x01")
    check("and closed", raw.recv(100), b"")

    login = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile."
    check("password", Raw("wrong", until="start").close(), (403, login, (0, 0)))
    check("password, silently", Raw("wrong", auth_close=False, until="start").close(), "gone")
    check("vhost", Raw(vhost="nope", until="tune").close(), (530, "NOT_ALLOWED - vhost nope not found", (10, 40)))
    Raw().opened(11)

    def after(name, data, wanted, opened=True):
        raw = Raw()
        if opened:
            raw.opened()
        raw.send(data)
        got = raw.close()
        check(name, got if len(wanted) == 3 or got == "gone" else got[:2], wanted)

    running = "CHANNEL_ERROR - unexpected method in connection state running"
    after("channel.open on 0", frame(1, 0, method(20, 10, b"\0")), (504, running, (20, 10)))
    open_twice = (504, "CHANNEL_ERROR - second 'channel.open' seen", (20, 10))
    after("channel.open twice", frame(1, 1, method(20, 10, b"\0")), open_twice)
    after("never opened", frame(1, 2, PUBLISH), (504, "CHANNEL_ERROR - expected 'channel.open'"))
    on_channel = (503, "COMMAND_INVALID - unimplemented method")
    after("connection method on a channel", frame(1, 1, method(10, 40, short("/") + b"\0\0")), on_channel)
    end = "FRAME_ERROR - type 1, all octets = <<0,20,0,20,1>>: {invalid_frame_end_marker,0}"
    after("frame end", frame(1, 1, method(20, 20, b"\1"), b"\0"), (501, end, (0, 0)))
    raw = Raw().opened()
    raw.send(frame(9, 1, b""))
    got = raw.close()
    check("frame type", (got[0], got[1].endswith("unknown_frame")), (501, True))
    raw = Raw().opened()
    raw.send(frame(1, 1, b"x" * 5000))
    got = raw.close()
    check("frame size", (got[0], got[1].endswith("{frame_too_large,5000,4088}")), (501, True))
    after("truncated", frame(1, 1, method(50, 10, b"\0")), (501, "FRAME_ERROR - cannot decode <<0>>", (50, 10)))
    no_header = "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead"
    after("method for a header", frame(1, 1, PUBLISH) + frame(1, 1, PUBLISH), (505, no_header))
    header = struct.pack(">HHQH", 60, 0, 1, 0)
    for name, data in [
        ("header alone", frame(2, 1, header)),
        ("header of class 50", frame(1, 1, PUBLISH) + frame(2, 1, struct.pack(">HHQH", 50, 0, 1, 0))),
        ("heartbeat on channel 1", frame(8, 1, b"")),
    ]:
        raw = Raw().opened()
        raw.send(data)
        check(name, raw.close()[0], 505)
    raw = Raw().opened()
    raw.send(frame(1, 1, PUBLISH) + frame(2, 1, header) + frame(3, 1, b"two"))
    check("body too long", raw.close()[0], 501)
    raw = Raw().opened()
    raw.send(frame(1, 1, PUBLISH) + frame(2, 1, struct.pack(">HHQH", 60, 0, 200 << 20, 0)))
    check("body of 200 MiB", raw.close()[0], 501)
    immediate = method(60, 40, b"\0\0\0" + short("q") + b"\2")
    after("immediate", frame(1, 1, immediate), (540, "NOT_IMPLEMENTED - immediate=true"))
    after("recover", frame(1, 1, method(60, 110, b"\0")), (540, "NOT_IMPLEMENTED - requeue=false"))
    after("flow", frame(1, 1, method(20, 20, b"\0")), (540, "NOT_IMPLEMENTED - active=false"))

    raw = Raw().opened()
    consume = method(60, 20, b"\0\0" + short("tags") + short("t1") + b"\2" + b"\0\0\0\0")
    raw.send(frame(1, 1, method(50, 10, b"\0\0" + short("tags") + b"\x08" + b"\0\0\0\0")))
    raw.send(frame(1, 1, consume) + frame(1, 1, consume))
    check("consumer tag", raw.close()[:2], (530, "NOT_ALLOWED - attempt to reuse consumer tag 't1'"))

    raw = Raw()
    raw.send(frame(1, 0, method(10, 50, struct.pack(">HBHH", 200, 0, 0, 0))))
    check("close-ok", raw.method()[:2], (10, 51))


channel_rows()
connection_rows()
print("ok" if not FAILED else f"{len(FAILED)} rows differ", flush=True)
sys.exit(bool(FAILED))
