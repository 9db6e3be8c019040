"""The embedded server against the real mongod: shared, killed, squeezed and attacked."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest
from pymongo import MongoClient, WriteConcern

from hullscreen.database.connection import open_database, reconnecting
from hullscreen.database.embedded_server import (
    acquire,
    embedded_uri,
    keep_running,
    status,
    stop,
    usual_cache_gb,
)
from hullscreen.database.server_files import ServerFiles, process_start, read_state
from hullscreen.potentials.errors import DatabaseError

CLIENT = """
import sys
from pathlib import Path
from hullscreen.database.embedded_server import acquire, status
project = Path(sys.argv[1])
with acquire(project, cache_gb=0.25, grace_s=0.5):
    print(status(project).mongod_pid, flush=True)
    sys.stdin.read()
"""

WRITER = """
import sys
from pathlib import Path
from hullscreen.database.connection import open_database
with open_database(Path(sys.argv[1])) as connection:
    numbers = connection.database["numbers"]
    for number in range(1_000_000):
        numbers.insert_one({"_id": number})
        print(number, flush=True)
"""

FAILING = """
import sys
from pathlib import Path
from hullscreen.database.embedded_server import acquire
from hullscreen.potentials.errors import DatabaseError
try:
    acquire(Path(sys.argv[1]), cache_gb=0.25).release()
except DatabaseError as error:
    print(error)
"""


def files_of(project):
    return ServerFiles(project / "database")


@pytest.fixture
def server(project):
    with acquire(project, cache_gb=0.25, grace_s=0.5) as handle:
        yield handle


def test_commands_at_once_share_one_server(project, run_python, mongods_of):
    clients = [run_python(CLIENT, project) for _ in range(4)]
    pids = {int(client.stdout.readline()) for client in clients}
    assert pids == set(mongods_of(project))
    assert len(pids) == 1
    assert status(project).clients == 4
    for client in clients:
        client.communicate()
        assert client.returncode == 0


@pytest.mark.parametrize("memory_gb", [0.5, 16.0, 1024.0])
def test_mongod_takes_the_cache_of_small_and_large_machines(project, memory_gb):
    with (
        acquire(project, cache_gb=usual_cache_gb(memory_gb)) as server,
        MongoClient(server.uri) as client,
    ):
        statistics = client.admin.command("serverStatus")["wiredTiger"]["cache"]
        cache_gb = statistics["maximum bytes configured"] / 2**30
    assert cache_gb == pytest.approx(min(max(memory_gb / 8, 0.25), 2.0), rel=0.01)
    stop(project)


def test_a_small_database_takes_little_room_and_keeps_a_journal(project):
    with acquire(project, cache_gb=0.25) as server, MongoClient(server.uri) as client:
        written = client.get_database("of", write_concern=WriteConcern(j=True)).facts
        written.insert_one({"journalled": True})
        log = client.admin.command("serverStatus")["wiredTiger"]["log"]
    stop(project)
    assert log["log bytes written"] > 0
    room = sum(path.stat().st_blocks * 512 for path in project.rglob("*") if path.is_file())
    assert room < 50e6, "mongod's own habit is to set 300 MB aside"


def test_ends_when_nobody_needs_it(project, wait_until, mongods_of):
    with acquire(project, cache_gb=0.25, grace_s=0.5) as server:
        state = read_state(files_of(project))
        uri = server.uri
    wait_until(lambda: not process_start(state.keeper_pid))
    assert mongods_of(project) == []
    assert not Path(state.socket).parent.exists()
    assert read_state(files_of(project)).phase == "stopped"
    with acquire(project, cache_gb=0.25, grace_s=0.5) as server:
        assert server.uri == uri == embedded_uri(project)


def test_ends_when_its_only_client_is_killed(project, run_python, wait_until, mongods_of):
    client = run_python(CLIENT, project)
    client.stdout.readline()
    client.kill()
    wait_until(lambda: not mongods_of(project))


def test_stays_for_the_grace_between_commands(project):
    pids = []
    for _ in range(3):
        with acquire(project, cache_gb=0.25, grace_s=20.0):
            pids.append(status(project).mongod_pid)
    assert len(set(pids)) == 1


def test_client_that_comes_while_it_stops_gets_a_server(project):
    # The instants of these releases and claims sweep over the end of the grace and of the server.
    for step in range(6):
        with acquire(project, cache_gb=0.25, grace_s=0.0) as server, MongoClient(server.uri) as one:
            one["test"]["numbers"].insert_one({"step": step})
        time.sleep(0.12 * step)


def test_a_directory_copied_while_its_server_runs_has_a_server_of_its_own(project, server):
    copied = project.with_name("copied")
    shutil.copytree(project, copied)
    shutil.rmtree(copied / "database" / "data")
    assert not status(copied).running
    with MongoClient(server.uri) as one:
        one["test"]["numbers"].insert_one({"written": "to the first"})
        with acquire(copied, cache_gb=0.25, grace_s=0.5) as other, MongoClient(other.uri) as two:
            assert other.uri != server.uri
            assert two["test"]["numbers"].count_documents({}) == 0
        assert stop(copied)
        assert one["test"]["numbers"].count_documents({}) == 1
    assert status(project).running


def test_a_directory_renamed_while_its_server_runs_keeps_the_server(project, server):
    renamed = project.rename(project.with_name("renamed"))
    assert status(renamed).uri == server.uri
    renamed.rename(project)


def write_while(project, disturb, n_writes=400):
    """Write numbers one by one, disturb after a tenth of them, and return what is stored."""
    with open_database(project) as connection:
        numbers = connection.database["numbers"]
        for number in range(n_writes):
            if number == n_writes // 10:
                disturber = threading.Thread(target=disturb)
                disturber.start()
            reconnecting(
                connection,
                lambda n=number: numbers.replace_one({"_id": n}, {"value": n * n}, upsert=True),
            )
        disturber.join()
        return {row["_id"]: row["value"] for row in numbers.find()}


def test_killed_mongod_comes_back_and_loses_nothing(project, server, mongods_of):
    before = status(project)
    stored = write_while(project, lambda: os.kill(before.mongod_pid, signal.SIGKILL))
    after = status(project)
    assert stored == {n: n * n for n in range(400)}
    assert after.keeper_pid == before.keeper_pid
    assert mongods_of(project) == [after.mongod_pid] != [before.mongod_pid]


def test_killed_keeper_comes_back_with_one_mongod(project, server, mongods_of):
    before = status(project)
    stored = write_while(project, lambda: os.kill(before.keeper_pid, signal.SIGKILL))
    after = status(project)
    assert stored == {n: n * n for n in range(400)}
    assert after.keeper_pid != before.keeper_pid
    assert mongods_of(project) == [after.mongod_pid] != [before.mongod_pid]


def test_killed_keeper_comes_back_for_clients_that_know_nothing_of_it(project, server):
    with MongoClient(server.uri, serverSelectionTimeoutMS=50_000) as client:
        os.kill(status(project).keeper_pid, signal.SIGKILL)
        # pymongo's own second try is all that a foreign program has.
        time.sleep(0.2)
        assert client["test"]["numbers"].count_documents({}) == 0


def test_everything_killed_keeps_what_was_acknowledged(project, run_python, mongods_of):
    acknowledged = 0
    for _ in range(3):
        writer = run_python(WRITER.replace("range(1", f"range({acknowledged}, 1"), project)
        for _ in range(150):
            acknowledged = int(writer.stdout.readline()) + 1
        found = status(project)
        for pid in (writer.pid, found.keeper_pid, found.mongod_pid):
            os.kill(pid, signal.SIGKILL)
        # Not communicate(): that would pass over lines which readline() has buffered already.
        acknowledged += len(writer.stdout.read().split())
        with open_database(project) as connection:
            numbers = connection.database["numbers"]
            stored = {row["_id"] for row in numbers.find()}
            # One write may have been stored whose acknowledgement was lost.
            assert stored - {acknowledged} == set(range(acknowledged))
            numbers.delete_one({"_id": acknowledged})
    assert len(mongods_of(project)) == 1


def test_stopped_orphan_is_ended_before_another_starts(project, wait_until, mongods_of):
    # An orphan that hangs does not follow the signal that it gets at its keeper's death.
    with acquire(project, cache_gb=0.25) as server:
        before = status(project)
        os.kill(before.mongod_pid, signal.SIGSTOP)
        threading.Timer(3.0, os.kill, (before.mongod_pid, signal.SIGCONT)).start()
        os.kill(before.keeper_pid, signal.SIGKILL)
        wait_until(lambda: not process_start(before.keeper_pid))
        server.ensure_running()
        assert mongods_of(project) == [status(project).mongod_pid] != [before.mongod_pid]


def test_stale_files_of_a_dead_server_do_not_matter(project, run_python):
    # Everything names living processes, as after a reboot that used the identifiers again.
    bystander = run_python("import sys; sys.stdin.read()")
    acquire(project, cache_gb=0.25, grace_s=30.0).release()
    files = files_of(project)
    found = status(project)
    # Stopped first: neither may notice the other's death, and tidy up.
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in (found.keeper_pid, found.mongod_pid):
            os.kill(pid, number)
    document = json.loads(files.state.read_text())
    document |= {"phase": "running", "keeper_pid": bystander.pid, "mongod_pid": bystander.pid}
    files.state.write_text(json.dumps(document))
    (files.data / "mongod.lock").write_text(f"{bystander.pid}\n")
    assert Path(document["socket"]).is_socket()
    with acquire(project, cache_gb=0.25, grace_s=0.5):
        assert status(project).running
    assert bystander.poll() is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"phase": "running"}', "\0\0\0"])
def test_broken_state_file_does_not_matter(project, content):
    (project / "database").mkdir()
    files_of(project).state.write_text(content)
    with acquire(project, cache_gb=0.25, grace_s=0.5):
        assert status(project).running


def test_forked_process_keeps_the_claim_of_its_parent(project, run_python, mongods_of):
    program = """
import os, sys, time
from pathlib import Path
from hullscreen.database.embedded_server import acquire
handle = acquire(Path(sys.argv[1]), cache_gb=0.25, grace_s=0.2)
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
handle.release()
time.sleep(2.0)
print("released", flush=True)
os._exit(0)
"""
    forked = run_python(program, project)
    assert forked.stdout.readline() == "released\n"
    assert len(mongods_of(project)) == 1
    forked.communicate()


def test_kept_server_stays_until_it_is_stopped(project, wait_until, mongods_of):
    keep_running(project)
    assert status(project).kept
    with acquire(project):
        assert stop(project) is False
        assert not status(project).kept
        assert status(project).running
    keep_running(project)
    assert stop(project) is True
    assert mongods_of(project) == []
    assert stop(project) is True


def test_forced_stop_ends_it_under_its_clients(project, mongods_of, run_python):
    client = run_python(CLIENT, project)
    client.stdout.readline()
    os.kill(client.pid, signal.SIGSTOP)
    assert stop(project) is False
    assert stop(project, force=True) is True
    assert mongods_of(project) == []


def test_stop_of_a_project_that_never_had_a_server(project):
    assert stop(project) is True
    assert not (project / "database").exists()
    assert not status(project).running


def test_nothing_listens_on_tcp(project, server):
    pid = status(project).mongod_pid
    listening = set()
    for table in ("tcp", "tcp6"):
        rows = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        listening |= {row.split()[9] for row in rows if row.split()[3] == "0A"}
    own = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            own.add(target[8:-1])
    assert own
    assert not own & listening


def test_only_its_user_reaches_the_socket(project, server, run_python):
    path = Path(read_state(files_of(project)).socket)
    for directory in (path.parent, path.parent.parent, project / "database"):
        assert stat.S_IMODE(directory.lstat().st_mode) == 0o700
    assert stat.S_IMODE(path.lstat().st_mode) == 0o700
    if os.geteuid() == 0:
        program = """
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except PermissionError:
    print("refused")
"""
        # The interpreter itself may lie where that user cannot read: it changes user afterwards.
        program = (
            "import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            + program
        )
        assert run_python(program, path).communicate()[0] == "refused\n"


def test_copied_project_has_a_server_of_its_own(project, server, tmp_path):
    copy = tmp_path / "copy"
    server.release()
    stop(project)
    shutil.copytree(project, copy)
    with acquire(project, cache_gb=0.25) as one, acquire(copy, cache_gb=0.25, grace_s=0.5) as two:
        assert one.uri != two.uri
        assert status(project).mongod_pid != status(copy).mongod_pid
    assert stop(copy)


def test_removed_project_takes_its_server_along(project, wait_until, mongods_of):
    with acquire(project, cache_gb=0.25) as server:
        state = read_state(files_of(project))
        server.release()
        shutil.rmtree(project)
        wait_until(lambda: not process_start(state.keeper_pid))
    assert mongods_of(project) == []
    assert not Path(state.socket).exists()


def test_lost_socket_is_made_again(project, server, wait_until):
    path = Path(read_state(files_of(project)).socket)
    shutil.rmtree(path.parent)
    with MongoClient(server.uri) as client:
        wait_until(path.is_socket)
        assert client["test"]["numbers"].count_documents({}) == 0


def test_log_is_rotated(project, server, wait_until):
    log = files_of(project).mongod_log
    with log.open("ab") as stream:
        stream.truncate(20_000_000)
    wait_until(lambda: log.exists() and log.stat().st_size < 1_000_000)
    wait_until(lambda: log.with_suffix(".log.1").stat().st_size >= 20_000_000)


def test_server_of_another_host_is_left_alone(project):
    with acquire(project, cache_gb=0.25, grace_s=0.2) as server:
        server.release()
    stop(project)
    files = files_of(project)
    document = json.loads(files.state.read_text())
    document |= {"phase": "running", "host": "node-17", "namespace": "another boot"}
    files.state.write_text(json.dumps(document))
    with pytest.raises(DatabaseError, match="runs on host node-17 and can be reached only there"):
        acquire(project, cache_gb=0.25)
    long_ago = time.time() - 3600.0
    os.utime(files.state, (long_ago, long_ago))
    with acquire(project, cache_gb=0.25, grace_s=0.5):
        assert status(project).running


def test_damaged_data_files_are_named(project):
    with acquire(project, cache_gb=0.25) as server:
        server.release()
    stop(project)
    (files_of(project).data / "WiredTiger.turtle").write_bytes(b"x" * 100)
    with pytest.raises(DatabaseError, match="its data files are damaged") as caught:
        acquire(project, cache_gb=0.25)
    assert "\n" not in str(caught.value)
    assert "data files are damaged" in status(project).reason
    assert not status(project).running


def test_missing_project_directory_is_named(tmp_path):
    with pytest.raises(DatabaseError, match=r"no project directory .*nowhere"):
        acquire(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_file_in_place_of_the_directory_is_named(project):
    (project / "database").write_text("")
    with pytest.raises(DatabaseError, match=r"cannot write in .*database: a file stands"):
        acquire(project)
    (project / "database").unlink()


@pytest.fixture
def in_small_file_system(tmp_path):
    """Words before a command that mount a small file system for it alone, and where it is."""
    place = tmp_path / "mounted"
    place.mkdir()
    private = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-rm"]

    def words(size, then="true"):
        script = f'mount -t tmpfs -o size={size} none "$0" && mkdir "$0/p" && {then} && exec "$@"'
        return [*private, "sh", "-c", script, str(place)]

    probe = subprocess.run([*words("1m"), "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"this user may not mount a file system: {probe.stderr.decode().strip()}")
    return place / "p", words


@pytest.mark.parametrize("size", ["8k", "16k", "200k"])
def test_full_disk_is_named(in_small_file_system, run_python, size):
    place, words = in_small_file_system
    process = run_python(FAILING, place, before=words(size))
    said, _ = process.communicate()
    assert said.count("\n") == 1
    assert "disk is full; free some space and run again" in said


def test_read_only_directory_is_named(in_small_file_system, run_python):
    place, words = in_small_file_system
    process = run_python(FAILING, place, before=words("1m", 'mount -o remount,ro "$0"'))
    said, _ = process.communicate()
    assert "file system is read-only; use another directory or give a MongoDB URI" in said


def test_file_size_limit_is_named(project, run_python):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    said, _ = run_python(limit + FAILING, project).communicate()
    assert "files may not grow so large; raise the limit (ulimit -f)" in said


def test_keeper_stays_small(run_python):
    program = """
import sys
import hullscreen.database.keeper
heavy = {"pymongo", "numpy", "numba", "scipy", "pymatgen", "fireworks", "ase", "asyncio"}
print(sorted(heavy & set(sys.modules)))
"""
    assert run_python(program).communicate()[0] == "[]\n"


def test_unix_sockets_only_in_private_directories(project, server):
    path = read_state(files_of(project)).socket
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    assert len(os.fsencode(path)) <= 107
