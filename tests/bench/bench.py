#!/usr/bin/env python3
"""The NBD server beside nbdkit, nbd-server and qemu-nbd: the same file and loop device, over a Unix socket and TCP,
through the page cache and past it.

Client and server have a core each. The cells are interleaved: each round runs every cell once with every server; the
tables have the medians of the rounds. The null server answers without I/O, so that it is the client's ceiling.
BENCH_SECONDS (of a cell), BENCH_ROUNDS and BENCH_MIB make it longer or shorter; BENCH_ONLY takes cells by a part of
their name, "cached 4k" those of one mode.
"""

import itertools
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS = float(os.environ.get("BENCH_SECONDS", "0.4"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
MIB = int(os.environ.get("BENCH_MIB", "256"))
ONLY = os.environ.get("BENCH_ONLY", "")
SIZE = MIB << 20
GIB = 1 << 30
CLIENT_CORE, SERVER_CORE = "0", "1"
# nbd-server and nbdkit do not go past the page cache: nbdkit's cache=none drops from it what it has read and written.
PEERS = {"cached": ["nbdkit", "nbd-server", "qemu-nbd"], "direct": ["qemu-nbd"]}
TICK = os.sysconf("SC_CLK_TCK")


def run(*words):
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


class Server:
    """One server over one file or device, at a Unix socket and a loopback port."""

    def __init__(self, name, mode, own, target, place, port):
        self.name, self.port = name, port
        self.socket = place / f"{name}-{port}.sock"
        self.processes = []
        for words in self.commands(mode, own, target, place):
            pinned = ["taskset", "-c", SERVER_CORE, *words]
            log = open(place / f"{name}-{port}.log", "w")
            self.processes.append(subprocess.Popen(pinned, stdout=log, stderr=log))
        self.pid_files = [place / f"{name}-{port}-{kind}.pid" for kind in ("unix", "tcp")]

    def commands(self, mode, own, target, place):
        socket, port, target = str(self.socket), str(self.port), str(target)
        if self.name == "volctl":
            return [[own, mode, target, socket, port]]
        if self.name == "null":
            return [[own, "null", str(SIZE), socket, port]]
        if self.name == "nbdkit":
            # One process listens at one of the two.
            common = ["nbdkit", "-f", "-e", "disk"]
            return [common + at + ["file", target] for at in (["-U", socket], ["-i", "127.0.0.1", "-p", port])]
        if self.name == "qemu-nbd":
            cache = {"cached": "--cache=writeback", "direct": "--cache=none"}[mode]
            common = ["qemu-nbd", "-f", "raw", "-x", "disk", "-t", "-e", "16", cache, "--discard=unmap"]
            return [common + at + [target] for at in (["-k", socket], ["-b", "127.0.0.1", "-p", port])]
        at = {"unix": f"unixsock = {socket}", "tcp": f"listenaddr = 127.0.0.1\nport = {port}"}
        return [self.nbd_server(place / f"nbd-server-{port}-{kind}", lines, target) for kind, lines in at.items()]

    @staticmethod
    def nbd_server(config, at, target):
        """It goes into the background: only its file tells its number."""
        config.write_text(
            f"[generic]\n{at}\nallowlist = true\n"
            f"[disk]\nexportname = {target}\nfua = true\nflush = true\ntrim = true\n"
        )
        return ["nbd-server", "-C", str(config), "-p", f"{config}.pid"]

    def uri(self, transport):
        return f"nbd+unix:///disk?socket={self.socket}" if transport == "unix" else f"nbd://127.0.0.1:{self.port}/disk"

    def wait(self):
        for uri in (self.uri("unix"), self.uri("tcp")):
            for _ in range(200):
                if subprocess.run(["nbdinfo", "--size", uri], capture_output=True).returncode == 0:
                    break
                time.sleep(0.05)
            else:
                sys.exit(f"bench: {self.name} does not answer at {uri}")

    def pids(self):
        files = [file for file in self.pid_files if file.exists()]
        return [process.pid for process in self.processes] + [int(file.read_text()) for file in files]

    def cpu_seconds(self):
        """Of all its processes and of those that they began, ended ones included."""
        total, own = 0, set(self.pids())
        # A child has a higher number than its parent, unless the numbers have wrapped around.
        for pid in sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if pid in own or int(fields[1]) in own:
                own.add(pid)
                total += sum(map(int, fields[11:15]))
        return total / TICK

    def stop(self):
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        for process in self.processes:
            process.wait()


def fio(rw, block, depth, connections):
    def cell(uri, _):
        said = run(
            "taskset", "-c", CLIENT_CORE, "fio", "--output-format=json", "--name=cell", "--ioengine=nbd",
            f"--uri={uri}", f"--rw={rw}", f"--bs={block}", f"--iodepth={depth}", f"--numjobs={connections}",
            f"--size={MIB}m", "--time_based", f"--runtime={round(1000 * SECONDS)}ms", "--group_reporting", "--thread", "--norandommap",
            "--refill_buffers=0",
        )
        # The engine says something of its own first.
        job = json.loads(said[said.index("{") :])["jobs"][0]["write" if "write" in rw else "read"]
        return job["io_bytes"], job["runtime"] / 1000

    return cell


def nbdcopy(direction):
    def cell(uri, files):
        source, destination = {
            "out": (uri, "null:"),
            "in": (files["full"], uri),
            "sparse in": (files["sparse"], uri),
        }[direction]
        began = time.monotonic()
        run("taskset", "-c", CLIENT_CORE, "nbdcopy", "--connections=4", str(source), str(destination))
        return SIZE, time.monotonic() - began

    return cell


def refill(target, full):
    """What was punched by one server would be less work for the next one, and more to be written again."""
    run("dd", f"if={full}", f"of={target}", "bs=1M", "conv=notrunc,fsync", "status=none")


def cells(mode):
    found = {}
    for rw in ("randread", "randwrite"):
        for depth in (1, 32):
            for connections in (1, 4):
                found[f"4k {rw}, depth {depth}, {connections} conn."] = fio(rw, "4k", depth, connections)
    for rw in ("read", "write"):
        found[f"1m {rw}"] = fio(rw, "1m", 4, 1)
    for direction in ("out", "sparse in", "in"):
        found[f"copy {direction}"] = nbdcopy(direction)
    return {name: cell for name, cell in found.items() if ONLY in f"{mode} {name}"}


def made_files(place):
    files = {name: place / name for name in ("full", "sparse")}
    noise = os.urandom(1 << 20)
    with open(files["full"], "wb") as full:
        for _ in range(MIB):
            full.write(noise)
    with open(files["sparse"], "wb") as sparse:
        sparse.truncate(SIZE)
        for at in range(0, SIZE, 32 << 20):
            sparse.seek(at)
            sparse.write(noise)
    return files


def measure(own, place):
    """(target, mode, transport, cell) -> server -> [(bytes, seconds, CPU seconds)]"""
    files = made_files(place)
    results = {}
    for number, (kind, mode) in enumerate(itertools.product(("file", "loop"), PEERS)):
        if not cells(mode):
            continue
        backing = place / f"{kind}.img"
        run("cp", "--sparse=never", str(files["full"]), str(backing))
        target = run("losetup", "--find", "--show", str(backing)).strip() if kind == "loop" else backing
        servers = []
        try:
            for index, name in enumerate(["volctl", *PEERS[mode], "null"]):
                servers.append(Server(name, mode, own, target, place, 19100 + 20 * number + index))
            for server in servers:
                server.wait()
            for done in range(ROUNDS):
                for transport, (cell, work) in itertools.product(("unix", "tcp"), cells(mode).items()):
                    # Whoever comes first is another one in each round.
                    first = done % len(servers)
                    for server in servers[first:] + servers[:first]:
                        if cell.endswith(" in"):
                            refill(target, files["full"])
                        before = server.cpu_seconds()
                        moved, seconds = work(server.uri(transport), files)
                        used = server.cpu_seconds() - before
                        runs = results.setdefault((kind, mode, transport, cell), {}).setdefault(server.name, [])
                        runs.append((moved, seconds, used))
                print(f"bench: {kind} {mode}, round {done + 1} of {ROUNDS}", file=sys.stderr)
        finally:
            for server in servers:
                server.stop()
            if kind == "loop":
                run("losetup", "-d", str(target))
        backing.unlink()
    return results


def rate(runs):
    return statistics.median(moved / seconds for moved, seconds, _ in runs)


def cost(runs):
    """CPU seconds per GiB; of all rounds together, since the kernel counts in hundredths."""
    return sum(used for _, _, used in runs) / (sum(moved for moved, _, _ in runs) / GIB)


def columns(mode, runs):
    """Of one cell in one mode: what volctl moves, and how that is beside the best peer, the null server and the peer that
    needs the least CPU."""
    if runs is None:
        return ["", "", "", ""]
    own, best = rate(runs["volctl"]), max(PEERS[mode], key=lambda peer: rate(runs[peer]))
    least = min(cost(runs[peer]) for peer in PEERS[mode])
    return [
        f"{own / (1 << 20):.0f}",
        f"{own / rate(runs[best]):.2f} {best}",
        f"{own / rate(runs['null']):.2f}",
        f"{cost(runs['volctl']):.2f}" + (f" ({cost(runs['volctl']) / least:.2f})" if least else ""),
    ]


def tables(results):
    for kind, transport in itertools.product(("file", "loop"), ("unix", "tcp")):
        print(f"\n{'A file' if kind == 'file' else 'A loop device'} over {'the Unix socket' if transport == 'unix' else 'TCP'}:\n")
        of_mode = ["MiB/s", "of best peer", "of null", "CPU s/GiB (of least)"]
        print("| |", " | ".join(f"{mode} " + " | ".join(of_mode) for mode in PEERS), "|")
        print("| --- |", " | ".join(["---:"] * len(of_mode) * len(PEERS)), "|")
        names = dict.fromkeys(cell for at, _, over, cell in results if (at, over) == (kind, transport))
        for cell in names:
            found = [columns(mode, results.get((kind, mode, transport, cell))) for mode in PEERS]
            print(f"| {cell} |", " | ".join(itertools.chain(*found)), "|")


def facts():
    model = next((line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if "model name" in line), "unknown")
    versions = [run("nbdkit", "--version").strip(), run("qemu-nbd", "--version").splitlines()[0], run("fio", "--version").strip()]
    print(f"\n{os.cpu_count()} cores of {model}, Linux {platform.release()}; {', '.join(versions)}; ", end="")
    print(f"{MIB} MiB; {SECONDS} s a cell, medians of {ROUNDS} rounds; load before: {LOAD:.1f}")


if __name__ == "__main__":
    if os.geteuid() != 0 or os.cpu_count() < 2:
        sys.exit("bench: a loop device takes root, and client and server a core each")
    LOAD = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="volctl-bench-") as directory:
        measured = measure(sys.argv[1], Path(directory))
    tables(measured)
    facts()
