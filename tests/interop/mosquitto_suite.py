#!/usr/bin/env python3
"""mosquitto's own tests of a broker, run against ours through the edge and without it, or against mosquitto likewise.

    mosquitto_suite.py SOURCE edge|plain|mosquitto|mosquitto-plain PROGRAM [NAME...]

SOURCE is the unpacked source package of mosquitto 2.0.11 with Debian's patches (`apt-get source mosquitto`), PROGRAM
the server `muster`, for `plain` the example `loopback` of the broker; NAME a part of the name of a test. Prints what
failed and a count; ends with 1 when something fails that is not in EXPECTED, or passes that is. It needs psutil.

Each test starts a broker and speaks plain MQTT to it. What it starts is this program. For `edge` and `mosquitto` that is
a relay: it starts the server with a data directory of its own and carries each connection to it in TLS 1.3 with a
client's certificate. For the others it becomes the broker; for `plain` it is a relay without TLS where a test wants more
than one port, or other rules in the middle. Settings that ours has under another name are translated. Rules are those
of whoever comes: ours does not go by user names. Where mosquitto reads its settings anew, ours is started anew.
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
LEFT_OUT = re.compile(
    r"06-|08-|09-(?!auth-bad-method|extended-auth-unsupported)|10-|14-"
    r"|01-connect-uname-(or-anon|.*denied)|01-connect-allow-anonymous"
)
QUOTAS = {
    "max_inflight_messages": "inflight",
    "max_keepalive": "keep_alive_s",
    "max_packet_size": "packet_bytes",
    "max_queued_messages": "queued",
    "max_topic_alias": "topic_aliases",
    "maximum_qos": "max_qos",
    "max_qos": "max_qos",
    "message_size_limit": "payload_bytes",
}
# What mosquitto has when nothing is set; the packets are compared with what it sends then.
DEFAULTS = {"inflight": 20, "packet_bytes": 268435455, "session_expiry_s": 4294967295, "topic_aliases": 10}
# Settings that are words: theirs, its value, ours.
WORDS = [
    ("allow_zero_length_clientid", "false", 'empty_client_id = "refuse"'),
    ("upgrade_outgoing_qos", "true", 'delivered_qos = "subscribed"'),
]
# What may be published and read where a test does not say.
OPEN = {
    "publish": ["#", "$test/#", "$TopicA/#", "$SYS/broker/connection/me/state"],
    "subscribe": ["#", "$SYS/#"],
}

# Appended to mosquitto's module of packets. It reads whole packets, and takes for equal what any broker may say or leave
# out: the length of no properties in DISCONNECT, a reason before the end of a connection, and in CONNACK of version 5 the
# reason of a refusal for none (0x80). Of ours the memory in use is measured, for mosquitto's the address space: idle
# stacks of threads, which mosquitto has none of, take that alone.
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


def _plain(frame):
    if frame[:1] == b"\xe0":
        return frame[:1] + (frame[2:3] or b"\x00")
    if frame[:1] == b"\x20" and len(frame) == 5 and frame[3] > 128:
        return frame[:3] + b"\x80" + frame[4:]
    return frame


def memory_of(broker):
    import psutil

    process = psutil.Process(broker.pid)
    process = next(iter(process.children()), process)
    memory = process.memory_info()
    return memory.vms if "mosquitto" in os.environ["SUITE_BROKER"] else memory.rss


def expect_packet(sock, name, expected):
    if expected[:1] in (b"\x20", b"\xe0"):
        recvd = _take_frame(sock)[:len(expected) if expected[:1] == b"\x20" else None]
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
    "asks for what MQTT 5 forbids: a will after its session (3.1.3.2.2), packets above the client's limit (2.1.4)": """
        07-will-delay 07-will-delay-reconnect
        12-prop-maximum-packet-size-publish-qos1 12-prop-maximum-packet-size-publish-qos2""",
    "wants no will of a connection that was taken over (MQTT 3.1.1 3.1.2.5, MQTT 5 3.1.3.2.2 want it)": """
        07-will-takeover""",
}
OURS = {name for names in WHY.values() for name in names.split()}
# A debug build of the whole server has more memory than the test allows before anyone comes.
LARGE = {"01-bad-initial-packets"} if "/debug/" in os.path.abspath(sys.argv[3] if sys.argv[3:] else "") else set()
# What fails with mosquitto behind the relay, and not without. They set up more than one listener, which the relay's
# settings take the place of.
BEHIND_RELAY = """01-connect-zero-length-id 04-retain-check-source 04-retain-check-source-persist
    04-retain-check-source-persist-diff-port 13-malformed-publish-v5"""
EXPECTED = {
    "edge": OURS | LARGE,
    "plain": OURS,
    "mosquitto": set(BEHIND_RELAY.split()),
    "mosquitto-plain": set(),
}


def settings_of(arguments):
    """The ports that a test asks for, and the lines of its settings."""
    if "-c" in arguments:
        lines = pathlib.Path(arguments[arguments.index("-c") + 1]).read_text().splitlines()
    else:
        lines = [f"listener {arguments[arguments.index('-p') + 1]}", "allow_anonymous true"]
    ports = [line.split()[1] for line in lines if line.split()[:1] in (["listener"], ["port"])]
    return [int(port) for port in ports] or [1888], lines


def quotas_of(settings):
    """mosquitto's settings in our words, as lines of our file."""
    given = {ours: settings[theirs] for theirs, ours in QUOTAS.items() if theirs in settings}
    quotas = DEFAULTS | given
    if settings.get("retain_available") == "false":
        quotas["retained"] = 0
    return "".join(f"{name} = {value}\n" for name, value in quotas.items())


def words_of(settings):
    """The other settings, as lines of our file."""
    return "".join(f"{ours}\n" for theirs, value, ours in WORDS if settings.get(theirs) == value)


def rules_of(settings):
    """What whoever comes may publish and read, as lines of our file."""
    rules = OPEN
    if "acl_file" in settings:
        lines = [line.split(" ", 2) for line in pathlib.Path(settings["acl_file"]).read_text().splitlines()]
        topics = [(access, topic) for kind, access, *topic in lines if kind == "topic" for topic in topic]
        publish = [topic for access, topic in topics if "write" in access]
        rules = {"publish": publish, "subscribe": [topic for access, topic in topics if "read" in access]}
    return "".join(f"{name} = {json.dumps(topics)}\n" for name, topics in rules.items())


def folder_of(port, settings, base):
    """Where our server keeps what it keeps: a new folder, but for a test that starts a broker again."""
    kept = settings.get("persistence_file", "mosquitto.db") if settings.get("persistence") == "true" else None
    folder = base / f"run-{port}"
    if kept is None or not os.path.exists(kept):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base / "muster", folder)
    if kept:
        # The tests take it away when they are done with it.
        pathlib.Path(kept).touch()
    return folder


def start_muster(folder, settings, base):
    """Starts our server; it and its MQTT port."""
    shutil.copy(base / "muster" / "muster.toml", folder)
    with open(folder / "muster.toml", "a") as config:
        config.write(f"\n[broker]\n{words_of(settings)}[broker.quotas]\n{quotas_of(settings)}")
        config.write(f'[[broker.rules]]\n{rules_of(settings)}client_id = "any"\n')
    listen = [f"--listen-{name}=127.0.0.1:0" for name in ("https", "mqtt")]
    command = [os.environ["MUSTER"], "-C", folder, "serve", "--roles", "edge", *listen]
    log = open(folder / "log", "w")
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, stderr=log)
    return server, int(json.loads(server.stdout.readline())["edge_mqtt"].rpartition(":")[2])


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def wait_for(port):
    """Waits until somebody listens."""
    for _ in range(250):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            signal.sigtimedwait([signal.SIGUSR2], 0.02)


def loopback_command(port, folder, settings):
    """What runs our broker without the edge."""
    config = folder / "broker.toml"
    anonymous = f"[anonymous]\n{rules_of(settings)}"
    text = f"file = '{folder}/broker.redb'\n{words_of(settings)}[quotas]\n{quotas_of(settings)}{anonymous}"
    config.write_text(text)
    return [os.environ["MUSTER"], f"127.0.0.1:{port}", config]


def start_loopback(folder, settings, base):
    """Starts our broker without the edge; it and its port."""
    inner = free_port()
    server = subprocess.Popen(loopback_command(inner, folder, settings), stderr=subprocess.DEVNULL)
    wait_for(inner)
    return server, inner


def start_mosquitto(port, lines, base):
    """Starts mosquitto with TLS on another port; it and the port."""
    inner = free_port()
    lines = [line for line in lines if line.split()[:1] not in (["listener"], ["port"])]
    lines += [f"listener {inner} 127.0.0.1", "require_certificate true", f"cafile {base}/cas.pem"]
    lines += ["user root", f"certfile {base}/server.pem", f"keyfile {base}/server.key"]
    config = base / f"run-{port}.conf"
    config.write_text("\n".join(lines) + "\n")
    server = subprocess.Popen(["mosquitto", "-c", config], stderr=subprocess.DEVNULL)
    wait_for(inner)
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


class Behind:
    """The broker behind a relay."""

    def __init__(self, port, lines, base):
        self.port, self.lines, self.base, self.broker = port, lines, base, os.environ["SUITE_BROKER"]
        settings = self.settings()
        self.folder = None if self.broker == "mosquitto" else folder_of(port, settings, base)
        self.start()

    def settings(self):
        return dict(line.split(" ", 1) for line in self.lines if " " in line)

    def start(self):
        if self.broker == "mosquitto":
            self.server, self.inner = start_mosquitto(self.port, self.lines, self.base)
        else:
            start = {"edge": start_muster, "plain": start_loopback}[self.broker]
            self.server, self.inner = start(self.folder, self.settings(), self.base)

    def stop(self):
        self.server.terminate()
        self.server.wait()

    def read_anew(self):
        """Has the broker go by its settings as they are now."""
        if self.broker == "mosquitto":
            self.server.send_signal(signal.SIGHUP)
        else:
            self.stop()
            self.start()


def become_mosquitto(port, lines, base):
    """mosquitto as it is, in the place of this process."""
    config = base / f"run-{port}.conf"
    config.write_text("\n".join([*lines, "user root"]) + "\n")
    os.execvp("mosquitto", ["mosquitto", "-c", config])


async def relay(ports, behind, base):
    """Carries each connection of a test to the broker, until a signal ends it; in TLS with the device's certificate."""
    security = {}
    if behind.broker != "plain":
        context = ssl.create_default_context(cafile=base / "cas.pem")
        # mosquitto is given no issuing CA; its own certificate, which it trusts, serves for the client too.
        name = {"edge": "device", "mosquitto": "server"}[behind.broker]
        context.load_cert_chain(base / f"{name}.pem", base / f"{name}.key")
        security = {"ssl": context, "server_hostname": HOST}

    async def accept(reader, writer):
        try:
            inside = await asyncio.open_connection("127.0.0.1", behind.inner, **security)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(carry(reader, inside[1]), carry(inside[0], writer))
        except asyncio.CancelledError:
            # The test is over.
            pass

    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    loop.add_signal_handler(signal.SIGHUP, behind.read_anew)
    for port in ports:
        await asyncio.start_server(accept, "localhost", port)
    await over.wait()


def stand_in():
    """What a test takes for mosquitto."""
    base = pathlib.Path(os.environ["SUITE_BASE"])
    ports, lines = settings_of(sys.argv[1:])
    broker = os.environ["SUITE_BROKER"]
    if broker == "mosquitto-plain":
        become_mosquitto(ports[0], lines, base)
    settings = dict(line.split(" ", 1) for line in lines if " " in line)
    if broker == "plain" and len(ports) == 1 and "acl_file" not in settings:
        folder = folder_of(ports[0], settings, base)
        command = loopback_command(ports[0], folder, settings)
        os.execv(command[0], command)
    behind = Behind(ports[0], lines, base)
    try:
        asyncio.run(relay(ports, behind, base))
    finally:
        behind.stop()


def prepare(base, source, broker, muster):
    """A data directory with a hostname, a device's certificate, a server's for mosquitto, and the tests."""
    prepare_tests(base, source)
    if broker in ("plain", "mosquitto-plain"):
        (base / "muster").mkdir()
        return

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


def prepare_tests(base, source):
    """A copy of the tests that starts this program as mosquitto."""
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
        text = text.replace("psutil.Process(broker.pid).memory_info().vms", "mosq_test.memory_of(broker)")
        path.write_text(text, errors="surrogateescape")


def run_test(command, folder, environment, said):
    """Runs a test and ends what it leaves running; its exit code."""
    test = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said, start_new_session=True)
    try:
        return test.wait(120)
    except subprocess.TimeoutExpired:
        return 1
    finally:
        try:
            os.killpg(test.pid, signal.SIGTERM)
        except ProcessLookupError:
            # It left nothing.
            pass
        test.wait()


def main():
    source, broker, muster = pathlib.Path(sys.argv[1]), sys.argv[2], os.path.abspath(sys.argv[3])
    first_port = {"edge": 21000, "mosquitto": 22000, "plain": 23000, "mosquitto-plain": 24000}[broker]
    listed = re.findall(r"^\s+\((\d), './(\S+)\.py'\)", (source / "test/broker/test.py").read_text(), re.MULTILINE)
    wanted = [(int(count), name) for count, name in listed if not LEFT_OUT.match(name)]
    # One is listed and not in the package.
    wanted = [(count, name) for count, name in wanted if (source / f"test/broker/{name}.py").exists()]
    if sys.argv[4:]:
        wanted = [(count, name) for count, name in wanted if any(part in name for part in sys.argv[4:])]
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder)
        prepare(base, source, broker, muster)
        environment = os.environ | {"SUITE_BASE": folder, "SUITE_BROKER": broker, "MUSTER": muster}

        def passes(numbered):
            number, (count, name) = numbered
            ports = [str(first_port + 3 * number + place) for place in range(count)]
            # A file, for what a test leaves running would hold a pipe open.
            with open(base / f"said-{number}", "w+b") as said:
                code = run_test([sys.executable, f"./{name}.py", *ports], base / "test/broker", environment, said)
                if code:
                    said.seek(0)
                    print(f"== {name}\n{said.read(1500).decode(errors='replace')}", flush=True)
            return code == 0

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
