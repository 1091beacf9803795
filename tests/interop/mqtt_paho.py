"""Paho's client against a broker that lets everyone do everything.

mqtt_paho.py PORT: prints "all done" when all that was expected came.
"""

import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

V311, V5 = MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5
port = int(sys.argv[1])


class Client:
    def __init__(self, name, version, clean=True, expiry=None, alias_maximum=None):
        self.events = {kind: queue.Queue() for kind in ("connect", "disconnect", "subscribe", "message", "publish")}
        options = {} if version == V5 else {"clean_session": clean}
        self.paho = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=version, **options)
        self.paho.on_connect = lambda c, u, flags, code, props: self.put("connect", (flags, code, props))
        self.paho.on_disconnect = lambda c, u, flags, code, props: self.put("disconnect", flags)
        self.paho.on_subscribe = lambda c, u, mid, codes, props: self.put("subscribe", codes)
        self.paho.on_message = lambda c, u, message: self.put("message", message)
        self.paho.on_publish = lambda c, u, mid, code, props: self.put("publish", code)
        self.version, self.clean, self.expiry = version, clean, expiry
        self.alias_maximum = alias_maximum

    def put(self, kind, value):
        self.events[kind].put(value)

    def next(self, kind):
        return self.events[kind].get(timeout=10)

    def nothing(self, kind):
        try:
            raise AssertionError(f"unexpected {kind}: {self.events[kind].get(timeout=0.3)}")
        except queue.Empty:
            pass

    def connect(self):
        options = {}
        if self.version == V5:
            properties = Properties(PacketTypes.CONNECT)
            if self.expiry is not None:
                properties.SessionExpiryInterval = self.expiry
            if self.alias_maximum is not None:
                properties.TopicAliasMaximum = self.alias_maximum
            options = {"clean_start": self.clean, "properties": properties}
        self.paho.connect("127.0.0.1", port, keepalive=30, **options)
        self.paho.loop_start()
        flags, code, properties = self.next("connect")
        assert not code.is_failure, code
        self.granted = properties
        return flags.session_present

    def subscribe(self, *args, **kwargs):
        self.paho.subscribe(*args, **kwargs)
        return self.next("subscribe")

    def leave(self):
        self.paho.disconnect()
        self.next("disconnect")
        self.paho.loop_stop()


def qualities(version):
    client = Client(f"qualities-{version}", version)
    client.connect()
    client.subscribe(f"q/{version}/#", qos=2)
    big = bytes(range(256)) * 600
    for qos in (0, 1, 2):
        client.paho.publish(f"q/{version}/{qos}", big, qos=qos).wait_for_publish(10)
        message = client.next("message")
        assert (message.qos, message.payload) == (qos, big), (message.qos, len(message.payload))
    client.nothing("message")
    client.leave()


def sessions(version):
    reader = Client("away", version, clean=False, expiry=60)
    assert not reader.connect()
    reader.subscribe("away/#", qos=2)
    reader.leave()
    writer = Client("writer", version)
    writer.connect()
    for number in range(50):
        writer.paho.publish("away/x", str(number), qos=1 + number % 2).wait_for_publish(10)
    reader = Client("away", version, clean=False, expiry=0)
    assert reader.connect()
    got = [int(reader.next("message").payload) for _ in range(50)]
    # Paho hands out QoS 2 at its release, so that order holds within a quality only.
    assert [number for number in got if number % 2 == 0] == list(range(0, 50, 2)), got
    assert [number for number in got if number % 2 == 1] == list(range(1, 50, 2)), got
    reader.nothing("message")
    reader.leave()
    writer.leave()
    last = Client("away", version, clean=True)
    last.connect()
    last.leave()


def wills(version):
    watcher = Client("watcher", version)
    watcher.connect()
    watcher.subscribe("gone", qos=1)
    client = Client("willing", version)
    client.paho.will_set("gone", b"bye", qos=1)
    client.connect()
    client.paho.socket().shutdown(2)
    assert watcher.next("message").payload == b"bye"
    client.paho.loop_stop()
    watcher.leave()


def properties_of_version_5():
    client = Client("five", V5, alias_maximum=4)
    client.connect()
    for name in ("ReceiveMaximum", "MaximumPacketSize", "TopicAliasMaximum"):
        assert hasattr(client.granted, name), name
    options = Properties(PacketTypes.SUBSCRIBE)
    options.SubscriptionIdentifier = 7
    codes = client.subscribe("five/#", options=SubscribeOptions(qos=1, retainAsPublished=True), properties=options)
    assert codes[0].value == 1
    sent = Properties(PacketTypes.PUBLISH)
    sent.UserProperty = [("a", "1"), ("b", "2"), ("a", "3")]
    sent.ContentType, sent.ResponseTopic, sent.CorrelationData = "text/plain", "five/answer", b"\x00\xff"
    sent.PayloadFormatIndicator, sent.MessageExpiryInterval, sent.TopicAlias = 1, 60, 2
    client.paho.publish("five/x", "hello", qos=1, retain=True, properties=sent).wait_for_publish(10)
    message = client.next("message")
    got = message.properties
    assert (message.topic, message.retain) == ("five/x", True), (message.topic, message.retain)
    assert got.UserProperty == sent.UserProperty and got.SubscriptionIdentifier == [7]
    assert (got.ContentType, got.ResponseTopic, got.CorrelationData) == ("text/plain", "five/answer", b"\x00\xff")
    assert 55 < got.MessageExpiryInterval <= 60
    client.paho.publish("nobody/here", "x", qos=1).wait_for_publish(10)
    # More levels than are looked at.
    client.paho.subscribe("five" + "/x" * 201)
    assert client.next("disconnect").is_disconnect_packet_from_server
    client.paho.loop_stop()


def shares():
    members = [Client(f"member-{number}", V5) for number in range(3)]
    for member in members:
        member.connect()
        member.subscribe("$share/crew/work/+", qos=1)
    writer = Client("boss", V5)
    writer.connect()
    for number in range(30):
        writer.paho.publish(f"work/{number}", "x", qos=1).wait_for_publish(10)
    for member in members:
        for _ in range(10):
            member.next("message")
        member.nothing("message")
        member.leave()
    writer.leave()


def takeover():
    old = Client("same", V5)
    old.connect()
    new = Client("same", V5)
    new.connect()
    # Paho reads no reason code from a DISCONNECT without properties, so only that one came is known.
    assert old.next("disconnect").is_disconnect_packet_from_server
    old.paho.loop_stop()
    new.leave()


for version in (V311, V5):
    qualities(version)
    sessions(version)
    wills(version)
properties_of_version_5()
shares()
takeover()
print("all done")
