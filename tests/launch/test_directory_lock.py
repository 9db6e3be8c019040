"""Two supervisors of a directory, on one host or two, and file systems without locks."""

import errno
import fcntl
import os
import socket

import pytest

from hullscreen.launch.directory_lock import FILE_NAME, only_one, refuse_supervised
from hullscreen.potentials.errors import CampaignError


def test_the_other_one_is_named_with_its_host_unless_that_is_this_one(tmp_path):
    with only_one(tmp_path, "launch"):
        with (
            pytest.raises(
                CampaignError, match=rf"`hullscreen launch` is .* \(process {os.getpid()}\); wait"
            ),
            only_one(tmp_path, "run"),
        ):
            pass
        # As a process of another login node writes it through a common file system.
        (tmp_path / FILE_NAME).write_text("launch 7 login2\n")
        with (
            pytest.raises(CampaignError, match=r"\(process 7 on login2\); wait"),
            only_one(tmp_path, "run"),
        ):
            pass


def test_a_file_of_an_earlier_version_is_understood(tmp_path):
    with only_one(tmp_path, "run"):
        (tmp_path / FILE_NAME).write_text("run 7\n")
        with (
            pytest.raises(CampaignError, match=r"\(process 7\); wait"),
            only_one(tmp_path, "run"),
        ):
            pass


def test_what_needs_rest_is_refused_while_a_supervisor_lives_and_leaves_nothing(tmp_path):
    refuse_supervised(tmp_path, "a dump")
    assert not list(tmp_path.iterdir())
    with (
        only_one(tmp_path, "launch"),
        pytest.raises(
            CampaignError,
            match=rf"launch` is at work in .* \(process {os.getpid()}\), and a dump needs the "
            "campaign at rest: `hullscreen cancel",
        ),
    ):
        refuse_supervised(tmp_path, "a dump")
    refuse_supervised(tmp_path, "a dump")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_refuses_nobody(tmp_path, monkeypatch, number):
    def refuse(*_given):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with only_one(tmp_path, "launch"), only_one(tmp_path, "run"):
        assert (tmp_path / FILE_NAME).read_text().split()[1:] == [
            str(os.getpid()), socket.gethostname()
        ]  # fmt: skip
