"""The edge of the program: help, misspellings, exit codes and one sentence per error."""

import errno
import os
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest

from hullscreen.launch import command_line
from hullscreen.launch.command_line import COMMANDS, EXIT_CODES, Entry, describe_os_error, main
from hullscreen.potentials.errors import (
    CampaignError,
    DatabaseError,
    DFTError,
    InputError,
    PotentialError,
)

RUN_MAIN = "import sys; from hullscreen.launch.command_line import main; sys.exit(main())"


@pytest.fixture
def command_that(monkeypatch):
    """Add the command ``burst``, which calls the given function."""

    def add(action):
        module = types.ModuleType("hullscreen.launch.commands.burst")
        module.command = click.Command("burst", callback=action)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(COMMANDS, "burst", Entry("burst", "Test."))

    return add


def raising(error):
    def action():
        raise error

    return action


def test_help_shows_every_command_once_but_hidden_ones(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split()[0] for line in lines if line.startswith("  ") and line.strip()]
    for name, entry in COMMANDS.items():
        assert shown.count(name) == (0 if entry.hidden else 1), name


def test_no_words_show_the_help(capsys):
    assert main([]) == 0
    assert "Usage: hullscreen" in capsys.readouterr().out


def test_version_of_the_installed_package(capsys, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"1.2.3 of {name}")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "hullscreen 1.2.3 of hullscreen\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["hul"], "there is no command 'hul'; did you mean `hull`?"),
        (["xyzzy"], "there is no command 'xyzzy'; `hullscreen --help` lists them"),
        (
            ["init", "here"],
            "Missing option '--elements' (`hullscreen init --help` shows how to call it)",
        ),
    ],
)
def test_wrong_words_bring_one_sentence(words, sentence, capsys):
    assert main(words) == 2
    written = capsys.readouterr()
    assert written.err == f"hullscreen: {sentence}\n"
    assert written.out == ""


def test_an_unknown_option_is_named(capsys):
    assert main(["--bogus"]) == 2
    assert "--bogus" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (InputError("a"), 2),
        (PotentialError("b"), 3),
        (DFTError("c"), 4),
        (DatabaseError("d"), 5),
        (CampaignError("e"), 6),
        (OSError(errno.ENOSPC, "No space left on device", "f"), 7),
    ],
)
def test_errors_have_documented_exit_codes(error, exit_code, command_that, capsys):
    command_that(raising(error))
    assert main(["burst"]) == exit_code
    assert exit_code in EXIT_CODES
    written = capsys.readouterr().err
    assert written.startswith("hullscreen: ")
    assert written.count("\n") == 1


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), click.Abort()])
def test_interrupted(interruption, command_that, capsys):
    command_that(raising(interruption))
    assert main(["burst"]) == 130
    assert capsys.readouterr().err.strip() == "hullscreen: interrupted"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("fit", "interrupted; nothing was written"),
        ("run", "interrupted; what is done is kept, and running the same command again continues"),
        ("brute-force", "the same command again continues"),
        ("hull", "interrupted\n"),
    ],
)
def test_an_interrupted_command_says_what_it_leaves(name, sentence, monkeypatch, capsys):
    def interrupted(*_words, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line.commands, "main", interrupted)
    assert main([name]) == 130
    assert sentence in capsys.readouterr().err


def test_the_sentences_on_interruption_are_for_commands_that_exist():
    assert set(command_line.INTERRUPTED_BY_NAME) <= set(COMMANDS)


def test_pymongo_errors_that_fireworks_lets_through(command_that, capsys):
    # AutoReconnect is what FireWorks' own client raises when the server dies under it.
    pymongo_errors = pytest.importorskip("pymongo.errors")
    command_that(raising(pymongo_errors.AutoReconnect("connection closed")))
    assert main(["burst"]) == 5
    assert "connection closed" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(command_that):
    command_that(raising(ZeroDivisionError("bug")))
    with pytest.raises(ZeroDivisionError, match="bug"):
        main(["burst"])


def test_a_command_may_choose_its_exit_code(command_that):
    command_that(lambda: 3)
    assert main(["burst"]) == 3


@pytest.mark.parametrize(("number", "sentence"), command_line.FILE_PROBLEMS.items())
def test_file_problems_name_the_path_and_a_way_out(number, sentence, tmp_path):
    path = str(tmp_path / "file")
    described = describe_os_error(OSError(number, "text", path))
    assert described == sentence.format(path=path)
    assert ": " in sentence


def test_a_folder_that_is_not_there_is_named(tmp_path):
    described = describe_os_error(OSError(errno.ENOENT, "text", str(tmp_path / "no" / "file")))
    assert described.startswith(f"the folder {tmp_path / 'no'} does not exist: ")


def test_other_file_problems_keep_the_words_of_the_system():
    assert describe_os_error(OSError(errno.EIO, "Input/output error", b"/x")) == (
        "Input/output error: /x"
    )
    assert describe_os_error(OSError("no number")) == "no number"


def test_a_closed_pipe_is_quiet():
    with subprocess.Popen(
        [sys.executable, "-c", RUN_MAIN, "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(),
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def test_a_full_disk_under_stdout_is_one_sentence():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", RUN_MAIN, "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=_environment(),
        )
    assert done.returncode == 7
    assert done.stderr.startswith("hullscreen: no space is left")
    assert done.stderr.count("\n") == 1


def _environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
