#!/usr/bin/env python3
"""The control plane beside its peers and limits: the programs that are installed, on the simulated CloudStack.

What is compared is interleaved, in one run. BENCH_ONLY takes rows by a part of their name; BENCH_ROUNDS and
BENCH_OPERATIONS make it shorter or longer: the goal speaks of 100000 operations, which take an hour or more.
"""

import json
import os
import platform
import re
import shutil
import socket
import sqlite3
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import instructions
from appliance import DEVICE_FACTOR, DEVICE_WAIT, THIS_VM, Appliance, Cloud, poll_times, until, volumes

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
OPERATIONS = int(os.environ.get("BENCH_OPERATIONS", "2000"))
ONLY = os.environ.get("BENCH_ONLY", "")
PROGRAMS = Path(sys.argv[1]).resolve()

rows = []


def row(what, figure, against, goal, met):
    """`met` is None where nothing is promised."""
    verdict = {True: "yes", False: "**no**", None: "-"}[met]
    rows.append(f"| {what} | {figure} | {against} | {goal} | {verdict} |")
    print(f"bench: {what}: {figure} (beside: {against})", file=sys.stderr)


def ms(seconds):
    return f"{seconds * 1000:.{1 if seconds < 0.1 else 0}f} ms"


def moment(text):
    """An RFC 3339 time in seconds."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return time.mktime(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) - time.timezone + float(f"0.{fraction or 0}")


def polled(cloud, connection, job):
    """What the usual client does with a job; gives how often it asked."""
    began = time.monotonic()
    for asked, at in enumerate(poll_times(), 1):
        time.sleep(max(0, began + at - time.monotonic()))
        status, answer = cloud.call(connection, "queryAsyncJobResult", jobid=job)
        if status == 200 and answer["jobstatus"] != 0:
            return asked


def poll_loop_attach(cloud, connection, volume):
    job = cloud.call(connection, "attachVolume", id=volume, virtualmachineid=THIS_VM)[1]["jobid"]
    polled(cloud, connection, job)
    wait = DEVICE_WAIT
    while True:
        time.sleep(wait)
        if cloud.link(volume).exists():
            return
        wait *= DEVICE_FACTOR


def attach_overhead(place):
    """Beyond the later of the job's end and the device's event."""
    settings = {
        "device_delay_ms": 200,
        "latency": {"default": {"min_ms": 20, "max_ms": 20}, "attachVolume": {"min_ms": 3000, "max_ms": 3000}},
    }
    appliance = Appliance(PROGRAMS, place, volumes(2 * ROUNDS), settings).start()
    cloud, connection = appliance.cloud, appliance.cloud.connection()
    ids = [volume["id"] for volume in cloud.state()["volumes"] if volume["type"] != "ROOT"]

    def beyond(volume, attach):
        attach(volume)
        returned = time.time()
        jobs = [job for job in cloud.state()["jobs"] if job["command"] == "attachVolume"]
        ended = max(moment(job["completed"]) for job in jobs)
        return returned - max(ended, cloud.link(volume).lstat().st_mtime)

    own, loop = [], []
    for one, other in zip(ids[::2], ids[1::2]):
        own.append(beyond(one, lambda volume: appliance.run("attach", volume)))
        loop.append(beyond(other, lambda volume: poll_loop_attach(cloud, connection, volume)))
    appliance.stop()
    ours, usual = statistics.median(own), statistics.median(loop)
    row(
        "attach, beyond what the cloud needs", f"{ms(ours)} (at most {ms(max(own))})",
        f"a poll loop {ms(usual)}: {usual / ours:.0f} times", "under 50 ms, 20 times less", ours < 0.05 and usual > 20 * ours,
    )


def alternating(ids, number):
    """So many attaches and detaches in turn, spread over the volumes: (method, volume)."""
    return [(("volume.attach", "volume.detach")[index // len(ids) % 2], ids[index % len(ids)]) for index in range(number)]


def asked_at_once(appliance, changes):
    """Asks for all changes, those of a volume in their order, and waits until each is accepted; gives the operations' ids
    and the seconds that took."""
    of = {}
    for method, volume in changes:
        of.setdefault(volume, []).append(method)
    rpcs = {volume: appliance.rpc() for volume in of}
    began, accepted = time.monotonic(), []
    while any(of.values()):
        asked = [volume for volume, methods in of.items() if methods]
        for volume in asked:
            rpcs[volume].send(of[volume].pop(0), volume=volume, queue=True, timeout_seconds=3600)
        accepted += [rpcs[volume].answer()[1]["operation"]["id"] for volume in asked]
    took = time.monotonic() - began
    for rpc in rpcs.values():
        rpc.__exit__()
    return accepted, took


def all_ended(appliance, accepted, limit):
    """Their documents once all have ended."""
    with appliance.rpc() as rpc:
        def ended():
            shown = rpc.call("operation.list", limit=len(accepted))["operations"]
            return shown if all(operation["finished_at"] for operation in shown) else None
        return until("all operations to end", ended, limit, 0.1)


def api_calls(place):
    """100 attaches and detaches over 30 volumes of one VM, all asked for at once."""
    settings = {"latency": {"default": {"min_ms": 1000, "max_ms": 1000}}}
    # What CloudStack allows where it limits at all (facts sheet, 3.3); the loops beside have no limit.
    limited = {**settings, "throttle": {"max": 25, "interval_ms": 1000}}
    appliance = Appliance(PROGRAMS, place / "own", volumes(30), limited).start()
    usual = Cloud(PROGRAMS, place / "usual", volumes(30), settings)
    asked, lock = [], threading.Lock()

    def loops(changes):
        connection = usual.connection()
        for method, volume in changes:
            command, parameters = ("attachVolume", {"virtualmachineid": THIS_VM})
            if method == "volume.detach":
                command, parameters = ("detachVolume", {})
            job = usual.call(connection, command, id=volume, **parameters)[1]["jobid"]
            times = polled(usual, connection, job)
            with lock:
                asked.append(times)

    def data(cloud):
        return [volume["id"] for volume in cloud.state()["volumes"] if volume["type"] != "ROOT"]

    appliance.run("ls")
    before = appliance.cloud.calls()
    changes = alternating(data(usual), 100)
    of = {volume: [change for change in changes if change[1] == volume] for _, volume in changes}
    threads = [threading.Thread(target=loops, args=(own,)) for own in of.values()]
    for thread in threads:
        thread.start()
    accepted, _ = asked_at_once(appliance, alternating(data(appliance.cloud), 100))
    shown = all_ended(appliance, accepted, 600)
    for thread in threads:
        thread.join()
    after = appliance.cloud.calls()
    made = {command: count - before.get(command, 0) for command, count in after.items() if count > before.get(command, 0)}
    failed = [operation for operation in shown if operation["status"] != "succeeded"]
    polls = made.get("queryAsyncJobResult", 0) + made.get("listAsyncJobs", 0)
    with appliance.rpc() as rpc:
        metrics = rpc.call("system.metrics")["metrics"]
    throttled = sum(
        sample["value"] for metric in metrics for sample in metric["samples"] if "throttled" in sample["labels"].values()
    )
    appliance.stop()
    usual.stop()
    calls = ", ".join(f"{command} {count}" for command, count in sorted(made.items()))
    row(
        "polls for 100 attaches and detaches", f"{polls}; turned away {throttled:.0f} times; {len(failed)} failed ({calls})",
        f"a poll loop a job {sum(asked)}: {sum(asked) / polls:.1f} times", "10 times fewer, never turned away",
        sum(asked) >= 10 * polls and not throttled and not failed,
    )


def five_hundred(place):
    settings = {"latency": {"default": {"min_ms": 1, "max_ms": 1}}}
    appliance = Appliance(PROGRAMS, place, volumes(25), settings).start()
    appliance.run("ls")
    ids = [volume["id"] for volume in appliance.cloud.state()["volumes"] if volume["type"] != "ROOT"]
    changes, memory = alternating(ids, 500), []
    for _ in range(3):
        accepted, seconds = asked_at_once(appliance, changes)
        shown = all_ended(appliance, accepted, 900)
        memory.append(appliance.settled_memory()[0])
    half = sorted(shown, key=lambda operation: operation["finished_at"])[: len(shown) // 2]
    done = [sum(operation["volume_id"] == volume for operation in half) for volume in ids]
    failed = sum(operation["status"] != "succeeded" for operation in shown)
    appliance.stop()
    row(
        "500 operations at once, accepted", f"{ms(seconds)}; {failed} failed", "-", "under 1 s in all", seconds < 1 and not failed
    )
    row(
        "... how many each of 25 volumes had when half had ended", f"{min(done)} to {max(done)}", "10", "all alike",
        max(done) - min(done) <= 2,
    )
    row(
        "... RssAnon when 500, 1,000, 1,500 have ended", ", ".join(f"{kib / 1000:.1f} MB" for kib in memory), "-", "no growth",
        memory[2] <= memory[1] * 1.1,
    )


def process_seconds(words, environment):
    began = time.monotonic()
    pid = os.posix_spawn(words[0], words, environment, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)])
    _, status = os.waitpid(pid, 0)
    took = time.monotonic() - began
    assert status == 0, words
    return took


def commands(place):
    """`ls` beside a client that asks CloudStack; `device` beside readlink."""
    settings = {"latency": {"default": {"min_ms": 1, "max_ms": 1}, "listVolumes": {"min_ms": 50, "max_ms": 50}}}
    appliance = Appliance(PROGRAMS, place, volumes(999), settings).start()
    cloud, connection, volctl = appliance.cloud, appliance.cloud.connection(), str(PROGRAMS / "volctl")
    volume = next(volume["id"] for volume in cloud.state()["volumes"] if volume["type"] != "ROOT")
    appliance.run("attach", volume)
    appliance.run("ls")

    def lists():
        began = time.monotonic()
        for page in (1, 2):
            cloud.call(connection, "listVolumes", listall="true", page=page, pagesize=500)
        return time.monotonic() - began

    listed, asked, told, read, version = [], [], [], [], []
    for _ in range(8 * ROUNDS):
        listed.append(process_seconds([volctl, "ls"], appliance.environment))
        asked.append(lists())
        told.append(process_seconds([volctl, "device", volume], appliance.environment))
        read.append(process_seconds([shutil.which("readlink"), str(cloud.link(volume))], {}))
        version.append(process_seconds([volctl, "--version"], {}))
    counted = instructions.compare(appliance, {"--version": ["--version"], "ls": ["ls"], "device": ["device", volume]})
    appliance.stop()
    listed, asked, told, read, version = map(statistics.median, (listed, asked, told, read, version))
    row(
        "`volctl ls`, 1,000 volumes, whole process", ms(listed), f"a client that asks CloudStack {ms(asked)}", "under 10 ms",
        listed < 0.01,
    )
    row(
        "`volctl device VOLUME`, whole process", ms(told), f"`readlink` {ms(read)}, `volctl --version` {ms(version)}",
        "within 5 ms of it", told - read < 0.005,
    )
    for name, number, change in counted:
        row(f"instructions of `volctl {name}`", f"{number:,}", change, "what moved is said", None)


def multiplied(database, number):
    """Makes many operations of those that are there, with all that was noted of them."""
    db = sqlite3.connect(database)
    db.execute("PRAGMA synchronous = OFF")
    db.create_function("fresh", 1, lambda old: str(uuid.uuid5(uuid.NAMESPACE_OID, f"{old} {copy}")))
    columns = {}
    for table in ("operations", "events"):
        names = [name for _, name, *_ in db.execute(f"PRAGMA table_info({table})") if name != "seq"]
        columns[table] = names
        db.execute(f"CREATE TEMP TABLE pattern_{table} AS SELECT {', '.join(names)} FROM {table}")
    one = db.execute("SELECT count(*) FROM pattern_operations").fetchone()[0]
    for copy in range(number // one):
        for table, key in (("operations", "id"), ("events", "operation")):
            values = [f"fresh({name})" if name == key else "NULL" if name == "request_id" else name for name in columns[table]]
            of = "" if key == "id" else " WHERE operation IS NOT NULL"
            db.execute(
                f"INSERT INTO {table} ({', '.join(columns[table])}) SELECT {', '.join(values)} FROM pattern_{table}{of}"
            )
    db.commit()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def daemon_start(place):
    appliance = Appliance(PROGRAMS, place, volumes(9999), {"latency": {"default": {"min_ms": 1, "max_ms": 1}}}).start()
    ids = [volume["id"] for volume in appliance.cloud.state()["volumes"] if volume["type"] != "ROOT"]
    for verb in ("attach", "detach"):
        appliance.run(verb, *ids[:20], *(["--yes"] if verb == "detach" else []))
    appliance.run("ls")
    appliance.stop_daemon()

    def started(stop):
        began = time.monotonic()
        appliance.start()
        took = time.monotonic() - began
        with appliance.rpc() as rpc:
            rpc.call("operation.list", limit=1)
        stop()
        return took

    def killed():
        appliance.process.kill()
        appliance.process.wait()

    few = [started(appliance.stop_daemon) for _ in range(ROUNDS)]
    multiplied(appliance.database, OPERATIONS)
    first = started(appliance.stop_daemon)
    many = [started(appliance.stop_daemon) for _ in range(ROUNDS)]
    after_kill = [(started(killed), started(appliance.stop_daemon))[1] for _ in range(ROUNDS)]
    size = appliance.database.stat().st_size
    appliance.stop()
    few, many, after_kill = map(statistics.median, (few, many, after_kill))
    row(
        f"start to first answer, 10,000 volumes and {OPERATIONS:,} operations ({size / 1e6:.0f} MB)",
        f"{ms(many)} (after a kill {ms(after_kill)}; of a store that something else wrote {ms(first)})",
        f"the old daemon's \"under 1 s\"; with 40 operations {ms(few)}", "under 50 ms", many < 0.05,
    )


def https(cloud, directory):
    """Puts TLS before the cloud; gives the URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server-cert.pem", directory / "server-key.pem")
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, sink):
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.close()
        except OSError:
            sink.close()

    def serve():
        while True:
            connection, _ = listener.accept()
            try:
                inside = context.wrap_socket(connection, server_side=True)
            except OSError:
                continue
            host, port = cloud.address.split(":")
            outside = socket.create_connection((host, int(port)))
            for pair in ((inside, outside), (outside, inside)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return f"https://127.0.0.1:{listener.getsockname()[1]}/client/api"


def certificates(place):
    """An authority and a server's certificate for 127.0.0.1."""
    appliance = Appliance(PROGRAMS, place / "authority").start()
    appliance.run("tls", "init", "--dir", str(place / "tls"), "--name", "127.0.0.1")
    appliance.stop()
    return place / "tls"


def nbd_client(path, export):
    """An idle NBD client that has read once."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    stream = client.makefile("rb")
    stream.read(18)
    client.sendall(struct.pack(">I", 3))
    name = export.encode()
    client.sendall(b"IHAVEOPT" + struct.pack(">III", 7, len(name) + 6, len(name)) + name + struct.pack(">H", 0))
    while True:
        _, _, kind, length = struct.unpack(">QIII", stream.read(20))
        stream.read(length)
        if kind == 1:
            break
        assert kind == 3, kind
    client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, 0, 4096))
    assert len(stream.read(16 + 4096)) == 16 + 4096
    return client, stream


def memory(place):
    tls = certificates(place)
    outside = Cloud(PROGRAMS, place / "outside", volumes(20), {"latency": {"default": {"min_ms": 1, "max_ms": 1}}})
    appliance = Appliance(
        PROGRAMS, place / "own", endpoint=https(outside, tls / "server"), cloudstack=f'ca_file = "{next(tls.glob("ca/ca-cert.pem"))}"\n'
    )
    appliance.start()
    # The first look at the volumes is what the daemon does by itself.
    until("CloudStack to be asked", lambda: outside.calls().get("listVolumes"))
    anonymous, resident = appliance.settled_memory()
    row(
        "memory, idle after HTTPS calls", f"RssAnon {anonymous * 1.024 / 1000:.1f} MB, VmRSS {resident * 1.024 / 1000:.1f} MB",
        "the old daemon's 5.6 MB", "at most 2.5 MB and 12 MB", anonymous * 1024 <= 2.5e6 and resident * 1024 <= 12e6,
    )
    appliance.stop()
    outside.stop()


def memory_of_operations(place):
    appliance = Appliance(PROGRAMS, place, volumes(20), {"latency": {"default": {"min_ms": 0, "max_ms": 0}}}).start()
    appliance.run("attach", "data0")

    def run(number):
        """Operations that find nothing to do: each is accepted, journaled and ended."""
        with appliance.rpc() as rpc:
            for index in range(number):
                rpc.send("volume.attach", volume="data0", queue=True, wait=True)
                if index >= 16:
                    rpc.answer()
            for _ in range(16):
                rpc.answer()

    run(1000)
    before = appliance.memory()[0]
    began = time.monotonic()
    run(OPERATIONS)
    took = time.monotonic() - began
    after = appliance.memory()[0]
    row(
        f"RssAnon after {OPERATIONS:,} operations ({OPERATIONS / took:.0f} a second)", f"{after * 1.024 / 1000:.1f} MB",
        f"after 1,000 {before * 1.024 / 1000:.1f} MB", "within 10 %", after <= 1.1 * before,
    )
    appliance.run("export", "data0", "--shared")
    name = json.loads(appliance.run("--json", "exports"))["exports"][0]["name"]
    first = [nbd_client(appliance.nbd, name) for _ in range(2)]
    before = appliance.memory()[0]
    clients = [nbd_client(appliance.nbd, name) for _ in range(200)]
    each = (appliance.memory()[0] - before) / len(clients)
    row("memory of an idle NBD client, of 200", f"{each:.1f} KiB", "-", "under 64 KiB", each < 64)
    for client, stream in first + clients:
        stream.close()
        client.close()
    appliance.stop()


def binaries(_):
    sizes = {name: (PROGRAMS / name).stat().st_size for name in ("volctl", "volctld")}
    shown = " + ".join(f"{name} {size:,}" for name, size in sizes.items())
    total = sum(sizes.values())
    row("stripped binaries, bytes", f"{shown} = {total:,}", "the old daemon's 10.2 MB", "under 10.2 MB", total < 10.2e6)


def store(place):
    """Bytes written to the store and its flushes, for each attach and detach."""
    appliance = Appliance(PROGRAMS, place, volumes(10), {"latency": {"default": {"min_ms": 1, "max_ms": 1}}}).start()
    names = [f"data{index}" for index in range(10)]
    appliance.run("attach", names[0])
    appliance.run("detach", names[0], "--yes")
    trace = place / "trace"
    calls = "trace=fsync,fdatasync,pwrite64,ftruncate"
    tracer = subprocess.Popen(
        ["strace", "-f", "-y", "-qq", "-s", "0", "-e", calls, "-o", trace, "-p", str(appliance.process.pid)]
    )
    until("strace to watch", lambda: any("TracerPid" in line and int(line.split()[1]) for line in open(f"/proc/{appliance.process.pid}/status")))
    for name in names[1:]:
        appliance.run("attach", name)
        appliance.run("detach", name, "--yes")
    tracer.terminate()
    tracer.wait()
    text, number = trace.read_text(), 2 * len(names[1:])
    flushes = len(re.findall(r"(?:fsync|fdatasync)\(\d+<[^>]*volctl\.db[^>]*>", text))
    written = sum(map(int, re.findall(r"pwrite64\(\d+<[^>]*volctl\.db[^>]*>.*= (\d+)$", text, re.MULTILINE)))
    appliance.stop()
    db = sqlite3.connect(appliance.database)
    ids = [id for (id,) in db.execute("SELECT id FROM operations ORDER BY seq LIMIT -1 OFFSET 2")]
    points = sum(
        db.execute("SELECT count(*) FROM events WHERE operation = ? AND status IS NOT NULL", [id]).fetchone()[0] for id in ids
    )
    row(
        "store, for an attach or detach", f"{flushes / number:.1f} fsyncs, {written / number / 1000:.0f} kB written",
        f"{points / number:.1f} points of its journal", "an fsync a point", flushes <= points * 1.05,
    )


MEASURED = {
    "attach": attach_overhead,
    "polls": api_calls,
    "queue": five_hundred,
    "commands": commands,
    "start": daemon_start,
    "memory": memory,
    "operations": memory_of_operations,
    "binaries": binaries,
    "store": store,
}


def facts(load):
    model = next((line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if "model name" in line), "unknown")
    print(f"\n{os.cpu_count()} cores of {model}, Linux {platform.release()}; medians of {ROUNDS} rounds; load before: {load:.1f}")


if __name__ == "__main__":
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="volctl-bench-") as directory:
        for name, measure in MEASURED.items():
            if ONLY in name:
                own = Path(directory) / name
                own.mkdir()
                measure(own)
    print("| what | figure | beside | goal | met |\n| --- | --- | --- | --- | --- |")
    print("\n".join(rows))
    facts(load_before)
