import os

import pytest

from hullscreen.database import mongod
from hullscreen.database.mongod import explain_failure, find_mongod, program_version, server_command
from hullscreen.potentials.errors import DatabaseError


def program(path, script):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def nothing_installed(tmp_path, monkeypatch):
    """A machine without the wheel, and an empty PATH to put programs on."""
    monkeypatch.setattr(mongod, "_wheel_programs", list)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def test_installed_program_runs():
    found = find_mongod()
    assert os.access(found, os.X_OK)
    assert int(program_version(found).split(".")[0]) >= 4


def test_program_on_path_serves_without_the_wheel(nothing_installed):
    expected = program(nothing_installed / "mongod", "echo db version v7.0.1")
    assert find_mongod() == expected
    assert program_version(expected) == "7.0.1"


def test_program_on_path_serves_where_the_wheel_does_not_run(nothing_installed, monkeypatch):
    broken = program(nothing_installed / "broken", "exit 127")
    monkeypatch.setattr(mongod, "_wheel_programs", lambda: [broken])
    expected = program(nothing_installed / "mongod", "echo db version v7.0.1")
    assert find_mongod() == expected


def test_missing_program_is_named(nothing_installed):
    with pytest.raises(DatabaseError, match=r"needs the program mongod.*install .*MongoDB URI"):
        find_mongod()


def test_missing_library_is_named(nothing_installed):
    program(
        nothing_installed / "mongod",
        "echo 'error while loading shared libraries: libcurl.so.4: no such file' >&2; exit 127",
    )
    with pytest.raises(DatabaseError, match=r"needs the shared library libcurl.so.4; install it"):
        find_mongod()


def test_program_for_another_machine_is_named(nothing_installed):
    path = program(nothing_installed / "mongod", "")
    path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(100))
    with pytest.raises(DatabaseError, match=r"does not run on this machine \(.*Exec format error"):
        find_mongod()


def test_lost_executable_bit_is_restored(nothing_installed, monkeypatch):
    path = program(nothing_installed / "wheel", "echo db version v6.0.5")
    path.chmod(0o644)
    monkeypatch.setattr(mongod, "_wheel_programs", lambda: [path])
    assert find_mongod() == path
    assert os.access(path, os.X_OK)


def test_command_listens_on_the_socket_alone(tmp_path):
    command = server_command(
        tmp_path / "mongod", tmp_path / "data", tmp_path / "s.sock", tmp_path / "log", cache_gb=0.01
    )
    assert command[command.index("--bind_ip") + 1] == str(tmp_path / "s.sock")
    assert "--nounixsocket" in command, "otherwise mongod makes a second socket in /tmp"
    assert command[command.index("--wiredTigerCacheSizeGB") + 1] == "0.25", "mongod accepts no less"


def line(severity, message):
    return f'{{"t":{{}},"s":"{severity}","c":"STORAGE","id":1,"ctx":"main","msg":"{message}"}}\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (line("E", "pwrite: No space left on device") + line("F", "WT_PANIC"), "the disk is full"),
        (line("E", "write: Disk quota exceeded"), "quota"),
        (line("E", "open: Read-only file system"), "read-only"),
        (line("E", "DBPathInUse: Unable to lock the lock file"), "another mongod uses"),
        (line("F", "Wrong mongod version"), "another version of mongod"),
        (line("E", "WiredTiger.wt: Permission denied"), "permission is denied"),
        (line("F", "Fatal assertion"), "damaged"),
        ("mongod: error while loading shared libraries: libssl.so.3: no\n", "libssl.so.3"),
        (line("E", "Address already in use"), "unix socket"),
        (line("W", "/sys/kernel/mm: Permission denied") + line("I", "corrupt"), ""),
        ('{"t":{},"s":"E","msg":"cut off: No space left on dev\n', ""),
        ("", ""),
    ],
)
def test_reasons(text, expected):
    found = explain_failure(text)
    assert expected in found
    assert bool(expected) == bool(found)
