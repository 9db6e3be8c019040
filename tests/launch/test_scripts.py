"""launch/demo and launch/test around the environment they make; the environment itself is faked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"


def run(script, *words, cwd, **variables):
    return subprocess.run(
        [LAUNCH / script, *words],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def made(tmp_path):
    """An environment with an up-to-date stamp, whose programs only note how they are called."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    for name in ("hullscreen", "ruff", "mypy"):
        program(venv / "bin" / name, f'echo {name} "$@" >> {tmp_path}/calls')
    digest = subprocess.run(
        ["sh", "-c", f'. "{LAUNCH}/environment.sh"; requirements_hash', LAUNCH / "demo"],
        env={**os.environ, "HULLSCREEN_VENV": str(venv)},
        capture_output=True,
        text=True,
        check=True,
    )
    (venv / ".hullscreen-").write_text(digest.stdout)
    return venv


def test_the_demo_installs_nothing_twice_and_continues(made, tmp_path):
    for _ in range(2):
        done = run("demo", cwd=tmp_path, HULLSCREEN_VENV=str(made))
        assert done.returncode == 0, done.stderr
        (tmp_path / "demo-cu-pd").mkdir(exist_ok=True)
        (tmp_path / "demo-cu-pd" / "hullscreen.toml").touch()
    assert (tmp_path / "calls").read_text().splitlines() == [
        "hullscreen init demo-cu-pd --elements Cu Pd",
        "hullscreen run demo-cu-pd",
        "hullscreen hull demo-cu-pd --picture demo-cu-pd/hull.png",
        "hullscreen run demo-cu-pd",
        "hullscreen hull demo-cu-pd --picture demo-cu-pd/hull.png",
    ]


def test_the_demo_ends_with_the_status_of_what_failed(made, tmp_path):
    program(made / "bin" / "hullscreen", "exit 5")
    assert run("demo", cwd=tmp_path, HULLSCREEN_VENV=str(made)).returncode == 5


def test_changed_requirements_are_installed(made, tmp_path):
    (made / ".hullscreen-").write_text("of yesterday")
    done = run("demo", cwd=tmp_path, HULLSCREEN_VENV=str(made))
    # This environment has no pip, so the attempt shows.
    assert done.returncode == 1
    assert "pip could not install hullscreen" in done.stderr
    assert not (tmp_path / "calls").exists()


def test_the_test_script_needs_more_than_the_demo(made, tmp_path):
    done = run("test", cwd=tmp_path, HULLSCREEN_VENV=str(made))
    assert done.returncode == 1
    assert "pip could not install hullscreen" in done.stderr


def test_the_test_script_stops_at_the_first_complaint(made, tmp_path):
    (made / ".hullscreen-").rename(made / ".hullscreen-test")
    program(made / "bin" / "ruff", f'echo ruff "$@" >> {tmp_path}/calls; exit 3')
    assert run("test", cwd=tmp_path, HULLSCREEN_VENV=str(made)).returncode == 3
    assert (tmp_path / "calls").read_text() == "ruff check .\n"


def test_an_old_python_is_one_sentence(tmp_path):
    old = program(tmp_path / "python", "exit 1")
    done = run("demo", cwd=tmp_path, PYTHON=old, HULLSCREEN_VENV=str(tmp_path / "venv"))
    assert done.returncode == 1
    assert done.stderr.startswith("hullscreen: Python 3.11 or newer is needed")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "venv").exists()


def test_a_missing_venv_module_is_one_sentence(tmp_path):
    bare = program(tmp_path / "python", 'case "$2" in *ensurepip*) exit 1;; esac')
    done = run("demo", cwd=tmp_path, PYTHON=bare, HULLSCREEN_VENV=str(tmp_path / "venv"))
    assert done.returncode == 1
    assert "has no venv module: install it" in done.stderr
    assert done.stderr.count("\n") == 1
