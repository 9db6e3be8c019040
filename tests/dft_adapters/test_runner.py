import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hullscreen.dft_adapters.engine import EngineMissingError
from hullscreen.dft_adapters.runner import run_command

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a parent's death")
FILES = {"stdout": "out", "stderr": "err"}
# A grandchild, as the ranks of mpirun are; each writes its process id.
FAMILY = "echo $$ > child.pid; sh -c 'echo $$ > grandchild.pid; sleep 60' & wait"


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def alive(pid_file):
    try:
        state = Path(f"/proc/{pid_file.read_text().strip()}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.rsplit(")", 1)[1].split()[0] != "Z"


def test_output_status_and_processor_time(tmp_path):
    work = "echo hello; echo oops >&2; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exit 3"
    done = run_command(["sh", "-c", work], tmp_path, **FILES)
    assert (done.returncode, done.timed_out) == (3, False)
    assert (tmp_path / "out").read_text() == "hello\n"
    assert (tmp_path / "err").read_text() == "oops\n"
    assert 0.01 < done.cpu_seconds < 5.0


def test_no_shell_sees_the_arguments(tmp_path):
    run_command(["echo", "$HOME", "; rm x", "*"], tmp_path, **FILES)
    assert (tmp_path / "out").read_text() == "$HOME ; rm x *\n"


def test_one_thread_unless_told_otherwise(tmp_path):
    run_command(["sh", "-c", "echo $OMP_NUM_THREADS $EXTRA"], tmp_path, **FILES)
    assert (tmp_path / "out").read_text() == "1\n"
    more = {"OMP_NUM_THREADS": "4", "EXTRA": "yes"}
    run_command(["sh", "-c", "echo $OMP_NUM_THREADS $EXTRA"], tmp_path, **FILES, environment=more)
    assert (tmp_path / "out").read_text() == "4 yes\n"


def test_a_missing_executable_is_one_sentence(tmp_path):
    with pytest.raises(EngineMissingError, match=r"'no-such-pw\.x' was not found on PATH"):
        run_command(["no-such-pw.x"], tmp_path, **FILES)


def test_a_signal_counts_as_128_more(tmp_path):
    done = run_command(["sh", "-c", "kill -SEGV $$"], tmp_path, **FILES)
    assert done.returncode == 128 + signal.SIGSEGV


@LINUX
def test_a_timeout_ends_the_whole_family(tmp_path):
    done = run_command(["sh", "-c", FAMILY], tmp_path, **FILES, timeout_s=1.0)
    assert done.timed_out
    wait_until(lambda: not alive(tmp_path / "child.pid"))
    wait_until(lambda: not alive(tmp_path / "grandchild.pid"))


@LINUX
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_a_killed_worker(tmp_path, number):
    worker = (
        "import sys; from pathlib import Path\n"
        "from hullscreen.dft_adapters.runner import run_command\n"
        f"run_command(['sh', '-c', {FAMILY!r}], Path({str(tmp_path)!r}), stdout='o', stderr='e')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", worker], env=environment, stderr=subprocess.DEVNULL
    ) as process:
        wait_until((tmp_path / "grandchild.pid").is_file, 30.0)
        wait_until(lambda: alive(tmp_path / "grandchild.pid"))
        process.send_signal(number)
        process.wait(10)
    wait_until(lambda: not alive(tmp_path / "child.pid"))
    wait_until(lambda: not alive(tmp_path / "grandchild.pid"))


@LINUX
def test_what_a_command_leaves_in_the_background_ends_with_it(tmp_path):
    run_command(["sh", "-c", "sleep 60 & echo $! > child.pid"], tmp_path, **FILES)
    wait_until(lambda: not alive(tmp_path / "child.pid"))
