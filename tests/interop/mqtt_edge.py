"""Paho at the door of a hostname: publishes to itself in every quality and prints "done", or what refused it.

mqtt_edge.py URL VERSION CA CLIENT_ID TOPIC [CERTIFICATE KEY]: the name in the URL is looked up as loopback.
"""

import os
import socket
import sys
import threading
import urllib.parse

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

url, version, ca, client_id, topic = sys.argv[1:6]
url = urllib.parse.urlsplit(url)
of_system = socket.getaddrinfo
socket.getaddrinfo = lambda name, *rest, **more: of_system("127.0.0.1", *rest, **more)
received, ending = [], threading.Event()


def end(text):
    if not ending.is_set():
        ending.set()
        print(text, flush=True)
        os._exit(0)


def on_connect(client, data, flags, code, properties):
    if code.is_failure:
        end(f"refused: {code}")
    client.subscribe(topic, qos=2)


def on_subscribe(client, data, mid, codes, properties):
    global is_refused
    is_refused = codes[0].is_failure
    for qos in (0, 1, 2):
        client.publish(topic, f"hello {qos}", qos=qos)


def on_publish(client, data, mid, code, properties):
    if code.is_failure and is_refused:
        end(f"refused: subscription and publication, {code}")


def on_message(client, data, message):
    received.append((message.topic, message.payload.decode(), message.qos))
    if len(received) == 3:
        good = sorted(received) == [(topic, f"hello {qos}", qos) for qos in (0, 1, 2)]
        end("done" if good else f"wrong: {received}")


def on_disconnect(client, data, flags, code, properties):
    end("refused: subscription and publication, closed" if is_refused else f"refused: {code}")


is_refused = False
threading.Timer(20, lambda: end(f"overdue after {received}")).start()
protocol = {"4": MQTTProtocolVersion.MQTTv311, "5": MQTTProtocolVersion.MQTTv5}[version]
transport = {"mqtts": "tcp", "wss": "websockets"}[url.scheme]
client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, protocol=protocol, transport=transport)
client.on_connect, client.on_subscribe, client.on_publish = on_connect, on_subscribe, on_publish
client.on_message, client.on_disconnect = on_message, on_disconnect
certificate, key = sys.argv[6:8] if len(sys.argv) > 6 else (None, None)
client.tls_set(ca, certificate, key)
try:
    client.connect(url.hostname, url.port)
    client.loop_forever(retry_first_connection=False)
except OSError as error:
    end(f"refused: {error}")
end("refused: closed")
