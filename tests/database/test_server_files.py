import fcntl
import os
import signal
import subprocess
import sys

import pytest

from hullscreen.database.mongod import end_other_mongod
from hullscreen.database.server_files import (
    ServerFiles,
    prepare,
    process_start,
    try_lock,
)
from hullscreen.potentials.errors import DatabaseError


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_database_of_another_user_is_refused(tmp_path):
    (tmp_path / "database").mkdir()
    os.chown(tmp_path / "database", 65534, 65534)
    with pytest.raises(DatabaseError, match="belongs to user 65534, not to you"):
        prepare(tmp_path)


def test_database_directory_is_closed_to_others(tmp_path):
    (tmp_path / "database").mkdir(mode=0o755)
    files = prepare(tmp_path)
    assert files.directory.stat().st_mode & 0o777 == 0o700


def test_shared_locks_exclude_the_exclusive_one(tmp_path):
    path = tmp_path / "lock"
    path.touch()
    one, two = try_lock(path, fcntl.LOCK_SH), try_lock(path, fcntl.LOCK_SH)
    assert try_lock(path, fcntl.LOCK_EX) is None
    os.close(one)
    assert try_lock(path, fcntl.LOCK_EX) is None
    os.close(two)
    os.close(try_lock(path, fcntl.LOCK_EX))


def test_start_time_tells_processes_apart():
    assert process_start(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process_start(child.pid) == "", "a zombie is not alive"
    assert process_start(child.pid) == ""


def test_foreign_holder_of_the_data_files_is_never_signalled(tmp_path):
    files = ServerFiles(tmp_path)
    files.data.mkdir()
    lock_file = files.data / "mongod.lock"
    program = """
import fcntl, os, sys
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.write(str(os.getpid()))
lock.flush()
print("held", flush=True)
sys.stdin.read()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", program, str(lock_file)]
    with subprocess.Popen(command, **pipes) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(DatabaseError, match="used by another program"):
            end_other_mongod(files, patience_s=0.2)
        assert holder.poll() is None
        holder.stdin.close()
        assert holder.wait() == 0 != -signal.SIGTERM
    end_other_mongod(files)
