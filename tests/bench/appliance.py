"""What the control plane is measured with: the simulated CloudStack, a volctld of its own, volctl, and a plain client."""

import base64
import hashlib
import hmac
import http.client
import json
import os
import socket
import subprocess
import time
import urllib.parse
from pathlib import Path

KEY, SECRET = "simulator-key", "simulator-secret"
THIS_VM = "a0000000-0000-4000-8000-000000000001"
ZONE = "20000000-0000-4000-8000-000000000001"
OFFERING = "30000000-0000-4000-8000-000000000001"
# When the usual clients ask for a job, in seconds after it was accepted, and then every 15 s; when they look for a device.
POLLS = [0, 1, 3, 6, 10, 15, 21, 28, 36, 45]
DEVICE_WAIT, DEVICE_FACTOR = 2.0, 1.5
# Longer than the daemon keeps what a crowd of operations took.
SETTLED = 4.0


def until(what, look, limit=60.0, pause=0.002):
    """What `look` gives as soon as it gives something."""
    deadline = time.monotonic() + limit
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {limit} s for: {what}")
        time.sleep(pause)
    return found


def poll_times():
    yield from POLLS
    last = POLLS[-1]
    while True:
        last += 15
        yield last


def volumes(number, size=1 << 30):
    """Rows of the simulator's seed."""
    return [{"name": f"data{index}", "size": size} for index in range(number)]


class Cloud:
    """The simulator, and what a script does with CloudStack: signed calls over a connection that is kept."""

    def __init__(self, programs, place, seed=(), settings=None):
        place.mkdir(parents=True, exist_ok=True)
        self.devices = place / "by-id"
        self.devices.mkdir(exist_ok=True)
        root = {"name": "ROOT", "type": "ROOT", "size": 8 << 30, "virtualmachineid": THIS_VM, "deviceid": 0}
        file = place / "seed.json"
        file.write_text(json.dumps({"volumes": [root, *seed], "settings": settings or {}}))
        words = [programs / "cloudstack-simulator", "--until-stdin-closes", "--seed", file, "--devices", self.devices]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.endpoint = self.process.stdout.readline().strip()
        self.address = urllib.parse.urlsplit(self.endpoint).netloc

    def connection(self):
        return http.client.HTTPConnection(self.address)

    def call(self, connection, command, **parameters):
        """The content of the answer, and its status."""
        pairs = {"command": command, "response": "json", "apikey": KEY, **parameters}
        quoted = {name: urllib.parse.quote(str(value), safe="*") for name, value in pairs.items()}
        text = "&".join(f"{name}={quoted[name]}" for name in sorted(quoted)).lower()
        digest = hmac.new(SECRET.encode(), text.encode(), hashlib.sha1).digest()
        form = urllib.parse.urlencode({**pairs, "signature": base64.b64encode(digest).decode()})
        connection.request("POST", "/client/api", form, {"Content-Type": "application/x-www-form-urlencoded"})
        answer = connection.getresponse()
        return answer.status, next(iter(json.loads(answer.read()).values()))

    def admin(self, method, what, body=None):
        connection = self.connection()
        connection.request(method, f"/admin/{what}", json.dumps(body) if body is not None else "")
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def state(self):
        return self.admin("GET", "state")

    def settings(self, **patch):
        self.admin("POST", "settings", patch)

    def calls(self):
        return self.state()["journal"]["calls"]

    def link(self, volume):
        return self.devices / f"virtio-{volume.replace('-', '')[:20]}"

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


class Appliance:
    """A cloud, a daemon that works with it, and `volctl`."""

    def __init__(self, programs, place, seed=(), settings=None, endpoint=None, cloudstack=""):
        self.programs, self.place = programs, place
        self.cloud = Cloud(programs, place, seed, settings)
        self.socket, self.nbd = place / "volctld.sock", place / "nbd.sock"
        self.database = place / "state" / "volctl.db"
        secret = place / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        self.config = place / "config.toml"
        self.config.write_text(
            f'[cloudstack]\nendpoint = "{endpoint or self.cloud.endpoint}"\napi_key = "{KEY}"\n'
            f'secret_key_file = "{secret}"\nvm_id = "{THIS_VM}"\n{cloudstack}'
            f'[device]\nby_id_dir = "{self.cloud.devices}"\n[nbd]\nunix_socket = "{self.nbd}"\n'
        )
        self.environment = {"VOLCTL_SOCKET": str(self.socket), "VOLCTLD_LOG": "warn", "PATH": os.environ["PATH"]}
        self.process = None

    def begin(self):
        """Starts the daemon; does not wait for it."""
        words = [self.programs / "volctld", "--config", self.config, "--state-dir", self.place / "state"]
        log = open(self.place / "volctld.log", "a")
        self.process = subprocess.Popen(words, env=self.environment, stderr=log, stdin=subprocess.DEVNULL)
        return self

    def start(self):
        """Starts the daemon and waits until it has answered."""
        self.begin()
        until("volctld to answer", self.answer, pause=0.0005)
        return self

    def answer(self):
        """The answer to one request, if somebody is there."""
        if self.process.poll() is not None:
            raise ChildProcessError((self.place / "volctld.log").read_text())
        try:
            with Rpc(self.socket) as rpc:
                return rpc.call("system.version")
        except (FileNotFoundError, ConnectionRefusedError):
            return None

    def run(self, *words):
        """What `volctl` prints."""
        return subprocess.run(
            [self.programs / "volctl", *words], env=self.environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    def rpc(self):
        return Rpc(self.socket)

    def memory(self):
        """KiB of the daemon: what is its own, and what is mapped in all."""
        lines = (line.split() for line in open(f"/proc/{self.process.pid}/status"))
        fields = {words[0]: words[1] for words in lines if len(words) > 1}
        return int(fields["RssAnon:"]), int(fields["VmRSS:"])

    def settled_memory(self):
        """The same once it has stayed within a hundredth for SETTLED seconds."""
        first, since = self.memory(), time.monotonic()

        def stayed():
            nonlocal first, since
            now = self.memory()
            if abs(now[0] - first[0]) > first[0] / 100:
                first, since = now, time.monotonic()
            return now if time.monotonic() - since > SETTLED else None

        return until("the daemon's memory to stay as it is", stayed, pause=0.05)

    def stop_daemon(self):
        self.process.terminate()
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.stop_daemon()
        self.cloud.stop()


class Rpc:
    """A connection to the daemon."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise
        self.lines = self.socket.makefile("r")
        self.next = 0

    def send(self, method, **params):
        self.next += 1
        request = {"jsonrpc": "2.0", "id": self.next, "method": method, "params": params}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        return self.next

    def answer(self):
        """The next answer: its request's number, and the result."""
        while "id" not in (message := json.loads(self.lines.readline())):
            pass
        if "error" in message:
            raise RuntimeError(message["error"])
        return message["id"], message["result"]

    def call(self, method, **params):
        self.send(method, **params)
        return self.answer()[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lines.close()
        self.socket.close()
