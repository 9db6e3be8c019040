import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

PATIENCE_S = 60.0
# The last dashboard of each test process ends in less; a slow machine has this long.
END_PATIENCE_S = 20.0


@dataclass
class Dashboard:
    """A `hullscreen dashboard` in a process of its own."""

    process: subprocess.Popen
    address: str
    errors: Path

    def __post_init__(self):
        parts = urlsplit(self.address)
        self.port, self.token = parts.port, parts.query.partition("=")[2]
        self.own = f"http://127.0.0.1:{self.port}"
        self.cookie = ""

    def ask(self, path, *, method="GET", body=None, headers=None, signed=True):
        """Status, headers and text of an answer; as the page asks, unless told otherwise."""
        given = {"Host": f"127.0.0.1:{self.port}", "Sec-Fetch-Site": "same-origin"}
        if body is not None:
            given["Content-Type"] = "application/json"
        if signed:
            given["Cookie"] = self.cookie or self.log_in()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            data = json.dumps(body) if isinstance(body, dict | list) else body
            connection.request(method, path, body=data, headers={**given, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode(errors="replace")

    def log_in(self):
        """Visit the printed address; gives and keeps the cookie."""
        _, headers, _ = self.ask(f"/?token={self.token}", signed=False)
        self.cookie = headers["Set-Cookie"].partition(";")[0]
        return self.cookie

    def end(self, number):
        """Ask it to end; its exit code. Where it does not, it says in its errors what it does."""
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout=END_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait()
            raise AssertionError(self.errors.read_text()) from None


def launched(*words, **options):
    """A command of hullscreen in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "hullscreen.launch", *map(str, words)],
        env={
            **os.environ,
            # Tells what every thread does when it is ended by SIGABRT.
            "PYTHONFAULTHANDLER": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            **options.pop("env", {}),
        },
        **options,
    )


@contextlib.contextmanager
def dashboard_of(*words, errors, env=None):
    """A running dashboard; it is ended afterwards. ``errors`` is the file for what it complains."""
    with errors.open("w") as stderr:
        process = launched(
            "dashboard", "--no-browser", *words,
            stdout=subprocess.PIPE, stderr=stderr, text=True, env=env or {},
        )  # fmt: skip
    try:
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=[\w-]+$", line.strip())
        assert found, (line, errors.read_text())
        yield Dashboard(process, found[0], errors)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="session")
def open_dashboard():
    """`dashboard_of`."""
    return dashboard_of


@pytest.fixture(scope="session")
def launch_command():
    """`launched`."""
    return launched


def wait_for(condition, patience_s=PATIENCE_S):
    """What a condition gives as soon as it is true."""
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)
    return value


@pytest.fixture(scope="session", name="wait_for")
def wait_for_fixture():
    """`wait_for`."""
    return wait_for
