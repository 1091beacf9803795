#!/usr/bin/env python3
"""mosquitto's own tests of a broker, run against ours through the edge, or against mosquitto behind the same relay.

    mosquitto_suite.py SOURCE edge|mosquitto MUSTER [NAME...]

SOURCE is the unpacked source package of mosquitto 2.0.11 with Debian's patches (`apt-get source mosquitto`), MUSTER the
server's program, NAME a part of the name of a test. Prints what failed and a count; ends with 1 when something fails
that is not in EXPECTED, or passes that is.

Each test starts a broker and speaks plain MQTT to it. What it starts is this program as a relay: it starts the server
with a data directory of its own and carries each connection to the edge in TLS 1.3 with a device's certificate.
Tests of bridges, of plugins and of TLS settings of mosquitto's own are left out: they are not about a client.
"""

import asyncio
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile

HOST = "mqtt.example.test"
LEFT_OUT = re.compile(r"06-|08-|09-|10-|14-|01-connect-uname-(or-anon|.*denied)|01-connect-allow-anonymous")
RULES = """
[[broker.rules]]
publish = ["#", "$test/#", "$TopicA/#", "$SYS/broker/connection/me/state"]
subscribe = ["#", "$SYS/#"]
client_id = "any"
"""

# Appended to mosquitto's module of packets. It reads whole packets, and takes for equal what any broker may say or leave
# out: limits and lifetimes in CONNACK, the length of no properties, and a reason before the end of a connection.
COMPARISON = r'''
def _take(sock, count):
    taken = b""
    while len(taken) < count:
        more = sock.recv(count - len(taken))
        if not more:
            break
        taken += more
    return taken


def _take_frame(sock):
    frame = _take(sock, 1)
    length = shift = 0
    while frame:
        octet = _take(sock, 1)
        frame += octet
        if not octet:
            return frame
        length |= (octet[0] & 127) << shift
        shift += 7
        if octet[0] < 128:
            break
    return frame + _take(sock, length)


_SIZES = {0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2a: 1}
_LIMITS = (0x11, 0x21, 0x22, 0x24, 0x27)


def _plain(frame):
    if frame[:1] == b"\xe0":
        return frame[:1] + (frame[2:3] or b"\x00")
    kept, rest = frame[2:4], frame[5:]
    while rest:
        size = 1 + _SIZES[rest[0]] if rest[0] in _SIZES else 3 + rest[1] * 256 + rest[2]
        if rest[0] not in _LIMITS:
            kept += rest[:size]
        rest = rest[size:]
    return kept


def expect_packet(sock, name, expected):
    if expected[:1] in (b"\x20", b"\xe0"):
        recvd = _take_frame(sock)
        is_right = recvd[:1] == expected[:1] and _plain(recvd) == _plain(expected)
    else:
        recvd = _take(sock, len(expected) or 1)
        if not expected and recvd:
            recvd += _take(sock, 1000)
            if recvd[:1] == b"\xe0" or (recvd[:1] == b"\x20" and recvd[3:4] != b"\x00"):
                recvd = b""
        is_right = recvd == expected
    if not is_right:
        packet_matches(name, recvd, expected)
        raise TestError
    return True
'''

# What fails with ours, by why it may.
WHY = {
    "asks for a setting or a version that only mosquitto has": """
        01-connect-connack-2163 01-connect-invalid-id-0 01-connect-invalid-id-missing 01-connect-success
        02-subpub-qos0-oversize-payload 02-subpub-qos1-oversize-payload 03-publish-c2b-disconnect-qos2
        03-publish-qos1-retain-disabled 04-retain-check-source 04-retain-check-source-persist
        04-retain-check-source-persist-diff-port 04-retain-upgrade-outgoing-qos 07-will-oversize-payload
        12-prop-maximum-packet-size-broker 12-prop-topic-alias-invalid 13-malformed-publish-v5""",
    "reads silence where ours says why it ends the connection": """
        01-connect-duplicate 02-subpub-qos1-bad-pubcomp 02-subpub-qos1-bad-pubrec 02-subpub-qos2-bad-puback-1
        02-subpub-qos2-bad-puback-2 02-subpub-qos2-bad-pubcomp""",
    "takes one of several right answers: packet ids, codes, the length of an assigned id, levels of a topic": """
        02-subpub-qos0-long-topic 02-subpub-qos1-message-expiry 02-subscribe-long-topic 03-publish-dollar-v5
        03-publish-long-topic 03-publish-qos1-max-inflight-expire 03-publish-qos2-dup 11-message-expiry
        11-persistent-subscription-no-local 12-prop-assigned-client-identifier 13-malformed-subscribe-v5
        13-malformed-unsubscribe-v5""",
    "asks for what the standard has not: wills beyond their session or not at a takeover, sizes without the header": """
        07-will-delay 07-will-delay-reconnect 07-will-delay-recover 07-will-takeover
        12-prop-maximum-packet-size-publish-qos1 12-prop-maximum-packet-size-publish-qos2
        12-prop-subpub-payload-format""",
}
# What fails with mosquitto behind the relay, and not without: they set up listeners of their own or several brokers.
BEHIND_RELAY = """01-connect-zero-length-id 04-retain-check-source 04-retain-check-source-persist
    04-retain-check-source-persist-diff-port 13-malformed-publish-v5"""
EXPECTED = {
    "edge": {name for names in WHY.values() for name in names.split()},
    "mosquitto": set(BEHIND_RELAY.split()),
}


def settings_of(arguments):
    """The port that a test asks for, and the lines of its settings."""
    if "-c" in arguments:
        lines = pathlib.Path(arguments[arguments.index("-c") + 1]).read_text().splitlines()
    else:
        lines = [f"listener {arguments[arguments.index('-p') + 1]}", "allow_anonymous true"]
    ports = [line.split()[1] for line in lines if line.split()[:1] in (["listener"], ["port"])]
    return int(ports[0]) if ports else 1888, lines


def start_muster(port, lines, base):
    """Starts our server; its MQTT port."""
    settings = dict(line.split(" ", 1) for line in lines if " " in line)
    kept = settings.get("persistence_file", "mosquitto.db") if settings.get("persistence") == "true" else None
    folder = base / f"run-{port}"
    if kept is None or not os.path.exists(kept):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base / "muster", folder)
    if kept:
        # The tests take it away when they are done with it.
        pathlib.Path(kept).touch()
    quotas = {"keep_alive_s": settings.get("max_keepalive"), "packet_bytes": settings.get("max_packet_size")}
    text = "".join(f"{name} = {value}\n" for name, value in quotas.items() if value)
    shutil.copy(base / "muster" / "muster.toml", folder)
    with open(folder / "muster.toml", "a") as config:
        config.write(f"\n[broker.quotas]\n{text}{RULES}")
    listen = [f"--listen-{name}=127.0.0.1:0" for name in ("https", "mqtt")]
    command = [os.environ["MUSTER"], "-C", folder, "serve", "--roles", "edge", *listen]
    log = open(folder / "log", "w")
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, stderr=log)
    return server, int(json.loads(server.stdout.readline())["edge_mqtt"].rpartition(":")[2])


def start_mosquitto(port, lines, base):
    """Starts mosquitto with TLS on another port; the port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        inner = free.getsockname()[1]
    lines = [line for line in lines if line.split()[:1] not in (["listener"], ["port"])]
    lines += [f"listener {inner} 127.0.0.1", "require_certificate true", f"cafile {base}/cas.pem"]
    lines += ["user root", f"certfile {base}/server.pem", f"keyfile {base}/server.key"]
    config = base / f"run-{port}.conf"
    config.write_text("\n".join(lines) + "\n")
    server = subprocess.Popen(["mosquitto", "-c", config], stderr=subprocess.DEVNULL)
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", inner)).close()
            break
        except ConnectionRefusedError:
            signal.sigtimedwait([signal.SIGUSR2], 0.02)
    return server, inner


async def carry(reader, writer):
    """Copies one way until its end, and ends the other side."""
    try:
        while octets := await reader.read(65536):
            writer.write(octets)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    writer.close()


async def relay(port, inner, base):
    """Carries each connection of a test in TLS with the device's certificate, until a signal ends it."""
    context = ssl.create_default_context(cafile=base / "cas.pem")
    # mosquitto is given no issuing CA; its own certificate, which it trusts, serves for the client too.
    name = {"edge": "device", "mosquitto": "server"}[os.environ["SUITE_BROKER"]]
    context.load_cert_chain(base / f"{name}.pem", base / f"{name}.key")

    async def accept(reader, writer):
        try:
            inside = await asyncio.open_connection("127.0.0.1", inner, ssl=context, server_hostname=HOST)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(carry(reader, inside[1]), carry(inside[0], writer))
        except asyncio.CancelledError:
            # The test is over.
            pass

    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    await asyncio.start_server(accept, "localhost", port)
    await over.wait()


def stand_in():
    """What a test takes for mosquitto."""
    base = pathlib.Path(os.environ["SUITE_BASE"])
    port, lines = settings_of(sys.argv[1:])
    start = {"edge": start_muster, "mosquitto": start_mosquitto}[os.environ["SUITE_BROKER"]]
    server, inner = start(port, lines, base)
    try:
        asyncio.run(relay(port, inner, base))
    finally:
        server.terminate()
        server.wait()


def prepare(base, source, muster):
    """A data directory with a hostname, a device's certificate, a server's for mosquitto, and the tests."""

    def run(*command):
        return subprocess.run(command, cwd=base, check=True, stdout=subprocess.PIPE).stdout

    run(muster, "init", "muster", "--zone", "example.test", "--json")
    run(muster, "-C", "muster", "host", "set", HOST, "--mode", "require", "--protocol", "mqtt")
    for name, subject in (("device", "/CN=tester"), ("server", f"/CN={HOST}")):
        run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
        run("openssl", "req", "-new", "-key", f"{name}.key", "-subj", subject, "-out", f"{name}.csr")
    (base / "device.pem").write_bytes(run(muster, "-C", "muster", "cert", "sign", "device.csr"))
    names = f"subjectAltName=DNS:{HOST}"
    run("openssl", "req", "-x509", "-key", "server.key", "-subj", "/CN=tests", "-addext", names, "-out", "server.pem")
    parts = [base / "muster" / "ca.pem", base / "server.pem"]
    (base / "cas.pem").write_text("".join(part.read_text() for part in parts))
    shutil.copytree(source / "test", base / "test")
    with open(base / "test" / "mosq_test.py", "a") as module:
        module.write(COMPARISON)
    (base / "src").mkdir()
    os.symlink(os.path.abspath(__file__), base / "src" / "mosquitto")
    for path in (base / "test").rglob("*.py"):
        # Debian's patch names the installed program.
        text = path.read_text(errors="surrogateescape").replace("/usr/sbin/mosquitto", "../../src/mosquitto")
        # A whole server takes longer to start than mosquitto does.
        text = text.replace("for i in range(0, 20):", "for i in range(0, 300):")
        path.write_text(text, errors="surrogateescape")


def main():
    source, broker, muster = pathlib.Path(sys.argv[1]), sys.argv[2], os.path.abspath(sys.argv[3])
    first_port = {"edge": 21000, "mosquitto": 22000}[broker]
    listed = re.findall(r"^\s+\((\d), './(\S+)\.py'\)", (source / "test/broker/test.py").read_text(), re.MULTILINE)
    wanted = [(int(count), name) for count, name in listed if not LEFT_OUT.match(name)]
    # One is listed and not in the package.
    wanted = [(count, name) for count, name in wanted if (source / f"test/broker/{name}.py").exists()]
    if sys.argv[4:]:
        wanted = [(count, name) for count, name in wanted if any(part in name for part in sys.argv[4:])]
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder)
        prepare(base, source, muster)
        environment = os.environ | {"SUITE_BASE": folder, "SUITE_BROKER": broker, "MUSTER": muster}

        def passes(numbered):
            number, (count, name) = numbered
            ports = [str(first_port + 3 * number + place) for place in range(count)]
            command = ["timeout", "--kill-after=5", "60", sys.executable, f"./{name}.py", *ports]
            done = subprocess.run(command, cwd=base / "test/broker", env=environment, capture_output=True, check=False)
            if done.returncode:
                said = (done.stdout + done.stderr).decode(errors="replace")
                print(f"== {name}\n{said[:1500]}", flush=True)
            return done.returncode == 0

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            passed = list(pool.map(passes, enumerate(wanted)))
    failed = {name for (_, name), is_good in zip(wanted, passed) if not is_good}
    expected = {name for _, name in wanted} & EXPECTED[broker]
    print(f"{len(wanted) - len(failed)} of {len(wanted)} pass through {broker}")
    for text, names in (("fails", failed - expected), ("passes, and is expected to fail", expected - failed)):
        for name in sorted(names):
            print(f"{name} {text}")
    return int(failed != expected)


if __name__ == "__main__":
    if os.path.basename(sys.argv[0]) == "mosquitto":
        stand_in()
    else:
        sys.exit(main())
