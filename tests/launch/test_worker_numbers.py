"""Local processes: by the settings, and by what one DFT calculation takes."""

import pytest

from hullscreen.launch import worker_numbers as numbers
from hullscreen.workflows.settings_tree import Settings


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    """A machine of eight cores."""
    monkeypatch.setattr(numbers, "n_cores", lambda: 8)


def settings(command="pw.x", **launch):
    return Settings(
        campaign={"elements": ["Al", "Ni"]},
        dft={"engine": "quantum_espresso", "quantum_espresso": {"command": command}},
        launch=launch,
    )


@pytest.mark.parametrize(
    ("launch", "option", "expected"),
    [
        ({}, None, (8, 0, 8)),
        ({"workers": 3}, None, (3, 0, 3)),
        ({"workers": 3}, 5, (5, 0, 5)),
        ({"workers": 3}, 0, (8, 0, 8)),
        ({"workers": 3, "dft_workers": 2}, 5, (5, 2, 2)),
    ],
)
def test_calculations_of_one_process(launch, option, expected):
    found = numbers.worker_numbers(settings(**launch), option)
    assert (found.workers, found.dft_workers, found.at_dft) == expected
    assert found.warning == ""


@pytest.mark.parametrize(
    ("command", "dft_workers"),
    [("mpirun -np 2 pw.x", 4), ("mpirun -n 3 pw.x", 2), ("srun --ntasks=32 pw.x", 1)],
)
def test_calculations_of_several_processes_share_the_cores(command, dft_workers):
    found = numbers.worker_numbers(settings(command))
    assert (found.workers, found.at_dft) == (8, dft_workers)
    # More processes than cores can only be what the command asks for.
    assert bool(found.warning) == (found.processes > 8)


def test_more_processes_than_cores_are_warned_of():
    found = numbers.worker_numbers(settings("mpirun -np 4 pw.x", workers=3))
    assert found.at_dft == 3
    assert found.warning.startswith(
        "3 DFT calculations at a time of 4 processes each are 12 processes on 8 cores"
    )
