"""A real replica set of three on loopback, each member behind a proxy that can be cut."""

import contextlib
import random
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from hullscreen.database.mongod import find_mongod

NAME = "storm"
PATIENCE_S = 120.0
CHUNK = 1 << 16


def free_port():
    """A port of loopback that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Proxy:
    """Forwards connections to a port, and breaks them when asked to."""

    def __init__(self, target):
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.pairs = set()
        self.lock = threading.Lock()
        self.deaf_until = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, seconds):
        """Reset all connections, and accept none for a while."""
        self.deaf_until = time.monotonic() + seconds
        with self.lock:
            pairs = list(self.pairs)
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    # No farewell: the other end sees a reset.
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RDWR)

    def close(self):
        """Forward nothing any more."""
        self.listener.close()
        self.cut(3600.0)

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if time.monotonic() < self.deaf_until:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()

    def _forward(self, client, server):
        pair = (client, server)
        other = {client: server, server: client}
        with self.lock:
            self.pairs.add(pair)
        try:
            while True:
                ready, _, _ = select.select(pair, (), ())
                for end in ready:
                    data = end.recv(CHUNK)
                    if not data:
                        return
                    other[end].sendall(data)
        except (OSError, ValueError):
            return
        finally:
            with self.lock:
                self.pairs.discard(pair)
            for end in pair:
                end.close()


@dataclass
class Member:
    """A mongod of the set.

    Attributes
    ----------
    directory, port
        Its data, and where it listens; clients and the others know its proxy's port.
    """

    directory: Path
    port: int
    proxy: Proxy
    process: subprocess.Popen | None = None

    @property
    def address(self):
        return f"127.0.0.1:{self.proxy.port}"

    def start(self):
        data = self.directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [
                find_mongod(), "--dbpath", data, "--port", str(self.port), "--bind_ip", "127.0.0.1",
                "--replSet", NAME, "--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "64",
                "--nounixsocket", "--quiet", "--logpath", self.directory / "log", "--logappend",
            ],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def kill(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@dataclass
class ReplicaSet:
    """Three members; at most one is down at a time, so that a majority is always left."""

    directory: Path
    members: list[Member] = field(default_factory=list)

    def __enter__(self):
        for number in range(3):
            port = free_port()
            self.members.append(Member(self.directory / f"mongo-{number}", port, Proxy(port)))
        for member in self.members:
            member.start()
        config = {
            "_id": NAME,
            "members": [{"_id": i, "host": m.address} for i, m in enumerate(self.members)],
            "settings": {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500},
        }
        first = self.members[0]
        self._patiently(lambda: self._admin(first, {"replSetInitiate": config}))
        self._patiently(self._ping)
        return self

    def __exit__(self, *_error):
        for member in self.members:
            member.kill()
            member.proxy.close()

    @property
    def uri(self):
        hosts = ",".join(member.address for member in self.members)
        return f"mongodb://{hosts}/?replicaSet={NAME}"

    def client(self):
        """A client for who looks on; it reads what a majority has."""
        return MongoClient(
            self.uri, serverSelectionTimeoutMS=30_000, readConcernLevel="majority", tz_aware=True
        )

    def kill_one(self, rng: random.Random):
        """Kill a member if all live; gives the one that must be started again."""
        if any(member.process is None for member in self.members):
            return None
        member = rng.choice(self.members)
        member.kill()
        return member

    def step_down(self):
        """Let the primary step down for some seconds; says whether there was one."""
        for member in self.members:
            with contextlib.suppress(PyMongoError):
                hello = self._admin(member, {"hello": 1})
                if hello.get("isWritablePrimary"):
                    with contextlib.suppress(PyMongoError):
                        self._admin(member, {"replSetStepDown": 5, "force": True})
                    return True
        return False

    def cut(self, seconds):
        """Break all connections, those among the members too."""
        for member in self.members:
            member.proxy.cut(seconds)

    def _ping(self):
        with self.client() as client:
            client.admin.command("ping")

    def _admin(self, member, command):
        with MongoClient(
            "127.0.0.1", member.port, directConnection=True, serverSelectionTimeoutMS=2000
        ) as client:
            return client.admin.command(command)

    def _patiently(self, operation):
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return operation()
            except PyMongoError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
