import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hullscreen.database import embedded_server
from hullscreen.database.server_files import process_start

# A start with an empty journal takes half a second; a loaded machine gets a hundred times that.
PATIENCE_S = 50.0


@pytest.fixture
def wait_until():
    """Function that waits for a condition and returns its value."""

    def wait(condition, patience_s=PATIENCE_S):
        deadline = time.monotonic() + patience_s
        while not (value := condition()):
            assert time.monotonic() < deadline, "the condition did not come true in time"
            time.sleep(0.02)
        return value

    return wait


@pytest.fixture
def mongods_of():
    """Function that lists every mongod that was started for a project's data files."""

    def listed(project):
        wanted = os.fsencode(project.resolve() / "database" / "data")
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or not process_start(int(entry.name)):
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted in words and words[0].endswith(b"mongod"):
                found.append(int(entry.name))
        return found

    return listed


@pytest.fixture
def project(tmp_path):
    """Project directory whose server, if a test left one, is ended."""
    directory = tmp_path / "project"
    directory.mkdir()
    yield directory
    if directory.is_dir():
        embedded_server.stop(directory, force=True)


@pytest.fixture
def run_python():
    """Function that starts a Python program on this tree; whatever still runs is killed."""
    started = []

    def start(program, *arguments, before=(), **keywords):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        keywords = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True} | keywords
        command = [*before, sys.executable, "-c", program, *map(str, arguments)]
        process = subprocess.Popen(command, env=environment, **keywords)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        with process:
            pass
