import pickle
from pathlib import Path

import numpy as np
import pytest

from hullscreen.dft_adapters.engine import (
    CalculationError,
    EngineMissingError,
    load_engine,
    require_finite,
)
from hullscreen.potentials.errors import DFTError, SettingsError


def test_the_default_engine_is_emt():
    assert load_engine({"engine": "ase"}).name == "EMT"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "must be one of 'ase', 'quantum_espresso', 'vasp', got None"),
        ({"engine": "vaps"}, "got 'vaps'"),
        ({"engine": "ase", "calculater": "x:Y"}, "did you mean 'calculator'"),
        ({"engine": "ase", "calculator": "ase.calculators.emt.EMT"}, "must be 'module:Class'"),
        ({"engine": "ase", "arguments": [1]}, "must be a table"),
        ({"engine": "quantum_espresso", "cutof_ry": 30}, "did you mean 'cutoff_ry'"),
        ({"engine": "quantum_espresso", "preset": "vaspkit"}, "no preset 'vaspkit'; presets: 'deb"),
        ({"engine": "quantum_espresso", "cutoff_ry": "30"}, "must be a positive number, got '30'"),
        ({"engine": "quantum_espresso", "kpoint_spacing": 0}, "must be a positive number, got 0"),
        (
            {"engine": "quantum_espresso", "cutoff_ry": 80},
            "density_cutoff_ry is 240, .* cutoff_ry 80",
        ),
        ({"engine": "quantum_espresso", "cutoff_ry": float("nan")}, "positive number, got nan"),
        ({"engine": "quantum_espresso", "command": []}, "must name an executable"),
        (
            {"engine": "quantum_espresso", "preset": "pseudo-dojo-pbe"},
            r"set `pseudopotentials` under \[dft\.quantum_espresso\] in hullscreen\.toml",
        ),
        ({"engine": "quantum_espresso", "extra_input": {"system": 3}}, "must be a mapping"),
        (
            {"engine": "quantum_espresso", "extra_input": {"control": {"outdir": "x"}}},
            "extra_input.control must not set 'outdir'",
        ),
    ],
)
def test_a_wrong_table_is_refused_in_one_sentence(table, message):
    with pytest.raises(SettingsError, match=message) as caught:
        load_engine(table)
    assert "\n" not in str(caught.value)


def test_errors_survive_a_process_boundary():
    error = CalculationError("timeout", "took too long", Path("/jobs/x"))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (again.reason, str(again), again.directory) == ("timeout", str(error), Path("/jobs/x"))
    missing = pickle.loads(pickle.dumps(EngineMissingError("why", "text")))  # noqa: S301
    assert (missing.reason, str(missing)) == ("why", "text")
    assert isinstance(error, DFTError)


@pytest.mark.parametrize(
    ("which", "named"), [("energy", "an energy"), ("forces", "a force"), ("stress", "a stress")]
)
def test_numbers_that_are_none_are_refused(which, named, tmp_path):
    values = {"energy": -1.0, "forces": np.zeros((2, 3)), "stress": np.zeros((3, 3))}
    require_finite(**values, n_atoms=2, who="X", directory=tmp_path)
    values[which] = values[which] * np.nan
    with pytest.raises(CalculationError, match=f"{named} that is not") as caught:
        require_finite(**values, n_atoms=2, who="X", directory=tmp_path)
    assert caught.value.reason == "not_finite"
    assert caught.value.directory == tmp_path


def test_missing_atoms_are_noticed(tmp_path):
    with pytest.raises(CalculationError, match=r"expected \(3, 3\)"):
        require_finite(
            -1.0, np.zeros((2, 3)), np.zeros((3, 3)), n_atoms=3, who="X", directory=tmp_path
        )


def test_a_force_beyond_all_crystals_is_refused(tmp_path):
    forces = np.zeros((2, 3))
    forces[1, 2] = -1e6
    with pytest.raises(CalculationError, match=r"a force of 1e\+06 eV/Å") as caught:
        require_finite(-1.0, forces, np.zeros((3, 3)), n_atoms=2, who="X", directory=tmp_path)
    assert caught.value.reason == "absurd_force"
