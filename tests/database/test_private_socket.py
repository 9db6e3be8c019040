import os

import pytest

from hullscreen.database import private_socket
from hullscreen.database.private_socket import make_private_directory, socket_path
from hullscreen.database.server_files import ServerFiles
from hullscreen.potentials.errors import DatabaseError


def test_private_directory_is_made_and_accepted_again(tmp_path):
    for _ in range(2):
        make_private_directory(tmp_path / "user")
    assert (tmp_path / "user").stat().st_mode & 0o777 == 0o700


def test_directory_open_to_others_is_refused(tmp_path):
    (tmp_path / "user").mkdir(mode=0o755)
    with pytest.raises(PermissionError, match="open to other users"):
        make_private_directory(tmp_path / "user")


def test_link_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "user").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="not a directory of this user"):
        make_private_directory(tmp_path / "user")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_directory_of_another_user_is_refused(tmp_path):
    (tmp_path / "user").mkdir(mode=0o700)
    os.chown(tmp_path / "user", 65534, 65534)
    with pytest.raises(PermissionError, match="not a directory of this user"):
        make_private_directory(tmp_path / "user")


def test_no_private_directory_is_an_error_with_every_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(private_socket, "SHARED_TEMPORARY_DIRECTORY", "/dev/null")
    monkeypatch.setattr(private_socket.tempfile, "tempdir", str(tmp_path / ("long" * 40)))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with pytest.raises(DatabaseError, match=r"Not a directory.*longer than 107 bytes.*set TMPDIR"):
        socket_path(ServerFiles(tmp_path))


def test_socket_path_belongs_to_one_project(tmp_path):
    paths = {socket_path(ServerFiles(tmp_path / name)) for name in ("one", "two", "one")}
    assert len(paths) == 2
    assert not any(path.parent.exists() for path in paths), "only a server makes the directory"
