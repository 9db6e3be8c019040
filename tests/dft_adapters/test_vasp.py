"""The VASP adapter with real custodian and the stand-in for VASP."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

from hullscreen.dft_adapters import file_engine
from hullscreen.dft_adapters.engine import CalculationError, EngineMissingError, load_engine
from hullscreen.dft_adapters.runner import Completed
from hullscreen.dft_adapters.vasp_runs import run_folders

pytestmark = pytest.mark.vasp

FAKE_VASP = Path(__file__).parents[1] / "fake_vasp" / "vasp_std"
ROOT = Path(__file__).parents[2]
TOLERANCES = {"force_tolerance": 0.01, "stress_tolerance": 0.1 / 160.2}
# The stand-in adds this to EMT's energies.
SHIFT_EV_PER_ATOM = -4.0


def make_engine(**settings):
    table = {
        "engine": "vasp",
        "command": [sys.executable, str(FAKE_VASP)],
        "potcar_spec": True,
        "monitor_every_s": 0.3,
        **settings,
    }
    return load_engine(table)


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / ".dev"))


@pytest.fixture
def here(environment, monkeypatch):
    """Custodian in this process: its two seconds of imports are paid once for all tests."""
    from hullscreen.dft_adapters import vasp_job

    def run(_command, directory, *, stdout, stderr, **_options):
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            code = vasp_job.main(directory)
        (directory / stdout).write_text(text.getvalue())
        (directory / stderr).touch()
        return Completed(code, timed_out=False, cpu_seconds=0.0)

    monkeypatch.setattr(file_engine, "run_command", run)


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Write the plan of failures; returns a function that tells which of them happened."""

    def write(*rules):
        path = tmp_path / "plan.json"
        path.write_text(json.dumps(rules))
        monkeypatch.setenv("FAKE_VASP_FAILURES", str(path))

        def happened():
            counts = path.with_suffix(".counts")
            return Counter(json.loads(counts.read_text()).get("happened", []))

        return happened

    return write


def alloy():
    """B2 CuPd, one atom off its place and the volume 6 % wrong."""
    atoms = bulk("CuPd", "cesiumchloride", a=2.91)
    atoms.positions[1] += (0.05, 0.0, -0.03)
    return atoms


def emt_energy(atoms):
    atoms = atoms.copy()
    atoms.calc = EMT()
    return atoms.get_potential_energy() + SHIFT_EV_PER_ATOM * len(atoms)


def geometry(atoms, result):
    moved = atoms.copy()
    moved.set_cell(result.cell)
    moved.set_positions(result.positions)
    return moved


# What comes out


def test_a_single_point_gives_energy_forces_and_stress(here, tmp_path):
    atoms = alloy()
    result = make_engine().single_point(atoms, tmp_path / "calculation")
    atoms.calc = EMT()
    # vasprun.xml has eight decimals, of kbar for the stress: 6e-12 eV/Å³.
    assert result.energy == pytest.approx(emt_energy(atoms), abs=2e-8)
    np.testing.assert_allclose(result.forces, atoms.get_forces(), atol=2e-8)
    np.testing.assert_allclose(result.stress, atoms.get_stress(voigt=False), atol=1e-10)
    assert (result.converged, result.n_evaluations, result.corrections) == (True, 1, ())


def test_forces_and_stress_are_derivatives_of_the_energy(here, tmp_path):
    """Central differences of energies that went through files: the signs are right."""
    atoms = alloy()
    engine = make_engine()
    result = engine.single_point(atoms, tmp_path / "start")

    def energy(moved, name):
        return engine.single_point(moved, tmp_path / name).energy

    step = 1e-3
    moved = {sign: atoms.copy() for sign in (-1, 1)}
    for sign, copy in moved.items():
        copy.positions[0, 2] += sign * step
    force = -(energy(moved[1], "z+") - energy(moved[-1], "z-")) / (2.0 * step)
    # Errors: 1e-8 eV of rounding over 2e-3 Å, and step² times third derivatives of ~10 eV/Å³.
    assert result.forces[0, 2] == pytest.approx(force, abs=3e-5)
    assert abs(force) > 0.01, "the test is empty"
    strained = {sign: atoms.copy() for sign in (-1, 1)}
    for sign, copy in strained.items():
        copy.set_cell(copy.cell * (1.0 + sign * step), scale_atoms=True)
    slope = (energy(strained[1], "e+") - energy(strained[-1], "e-")) / (2.0 * step)
    trace = slope / atoms.get_volume()
    assert np.trace(result.stress) == pytest.approx(trace, abs=1e-4)
    assert trace < -0.01, "a compressed crystal has a negative stress in ASE's sign"


def test_the_stand_in_itself_is_emt():
    """Its forces and stress are derivatives too, by ASE's own finite differences."""
    atoms = alloy()
    atoms.calc = EMT()
    # EMT's cutoff is smooth; steps of 1e-3 Å leave 1e-5.
    np.testing.assert_allclose(
        atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-3), atol=1e-4
    )
    np.testing.assert_allclose(
        atoms.get_stress(voigt=False),
        calculate_numerical_stress(atoms, eps=1e-4, voigt=False),
        atol=1e-4,
    )


def test_a_relaxation_ends_with_a_static_run(here, tmp_path):
    atoms = alloy()
    result = make_engine().relax(atoms, tmp_path, max_steps=60, **TOLERANCES)
    assert result.converged
    assert [folder.name for folder in run_folders(tmp_path)] == ["relax.1", "static.1"]
    assert result.energy == pytest.approx(emt_energy(geometry(atoms, result)), abs=1e-6)
    assert np.linalg.norm(result.forces, axis=1).max() < TOLERANCES["force_tolerance"]
    assert np.abs(result.stress).max() < TOLERANCES["stress_tolerance"]
    steps = (tmp_path / "relax.1" / "OSZICAR").read_text().count("F=")
    assert result.n_evaluations == steps + 1
    again = make_engine().relax(atoms, tmp_path, max_steps=60, **TOLERANCES)
    assert again.energy == result.energy


def test_too_few_steps_are_said(here, tmp_path):
    result = make_engine().relax(alloy(), tmp_path, max_steps=2, **TOLERANCES)
    assert (result.converged, result.reason) == (False, "step_limit")
    assert result.n_evaluations == 3


def test_left_handed_cells_and_mixed_orders_come_back_as_they_were(here, tmp_path):
    atoms = alloy().repeat((2, 1, 1))
    atoms.set_cell(atoms.cell[[1, 0, 2]])
    atoms = atoms[[2, 1, 0, 3]]
    atoms.positions += 3.0 * atoms.cell[1]
    assert np.linalg.det(atoms.cell[:]) < 0.0
    result = make_engine().single_point(atoms, tmp_path)
    assert "1 2 1" not in (tmp_path / "inputs" / "POSCAR").read_text()
    copy = atoms.copy()
    copy.calc = EMT()
    np.testing.assert_allclose(result.forces, copy.get_forces(), atol=1e-7)
    # Fourteen decimals of fractional coordinates.
    np.testing.assert_allclose(result.positions, atoms.positions, atol=1e-8)
    np.testing.assert_allclose(result.cell, atoms.cell[:], atol=1e-10)


# What goes wrong and is mended

MENDED = {
    "edddav": "edddav: ALGO = All, ISEARCH = 1",
    "eddrmm": "eddrmm: ALGO = Normal",
    "brmix": "brmix: IMIX = 1",
    "pricel": "pricel: SYMPREC = 1e-08, ISYM = 0",
    "inv_rot_mat": "inv_rot_mat: SYMPREC = 0.0001",
    "posmap": "posmap: SYMPREC = 1e-06",
    "too_few_bands": "too_few_bands: NBANDS = 15",
    "unconverged": "Unconverged: ALGO = Normal",
    "positive_energy": "Positive energy: ALGO = Normal",
}


@pytest.mark.parametrize("kind", MENDED)
def test_custodian_mends_single_points(here, plan, tmp_path, kind):
    happened = plan({"kind": kind})
    result = make_engine().single_point(alloy(), tmp_path / "calculation")
    assert result.energy == pytest.approx(emt_energy(alloy()), abs=2e-8)
    # A first BRMIX is only run again.
    assert happened() == {kind: 2 if kind == "brmix" else 1}
    assert any(MENDED[kind] in sentence for sentence in result.corrections), result.corrections


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("zbrent", "zbrent: CONTCAR as POSCAR; EDIFF = 1e-07; NELMIN = 8"),
        ("brions", "brions: CONTCAR as POSCAR; POTIM = 0.6"),
        ("potim", "POTIM: POTIM = 0.25"),
    ],
)
def test_custodian_mends_relaxations(here, plan, tmp_path, kind, sentence):
    happened = plan({"kind": kind, "relax": True})
    atoms = alloy()
    result = make_engine().relax(atoms, tmp_path / "calculation", max_steps=60, **TOLERANCES)
    assert happened() == {kind: 1}
    assert sentence in result.corrections
    assert result.converged
    assert result.energy == pytest.approx(emt_energy(geometry(atoms, result)), abs=1e-6)
    # The steps of the attempt that failed were paid for as well.
    folder = tmp_path / "calculation" / "relax.1"
    assert result.n_evaluations > (folder / "OSZICAR").read_text().count("F=") + 1


def test_a_frozen_vasp_is_ended_and_started_again(here, plan, tmp_path):
    happened = plan({"kind": "frozen"})
    # Of a healthy start something is heard within a second, on a busy machine within a few.
    result = make_engine(frozen_after_s=8.0).single_point(alloy(), tmp_path / "calculation")
    assert happened() == {"frozen": 1}
    assert result.corrections == ("Frozen job: ALGO = Normal",)


def test_projectors_in_real_space_are_given_up(here, plan, tmp_path):
    plan({"kind": "rspher"})
    engine = make_engine(extra_incar={"LREAL": "Auto"})
    result = engine.single_point(alloy(), tmp_path / "calculation")
    assert result.corrections == ("rspher: LREAL = False",)


@pytest.mark.parametrize("kind", ["segfault", "truncated", "killed"])
def test_what_custodian_does_not_mend_is_tried_once_more(here, plan, tmp_path, kind):
    reason = {"segfault": "crash", "truncated": "unreadable_result"}.get(kind, kind)
    happened = plan({"kind": kind, "times": 1})
    result = make_engine().single_point(alloy(), tmp_path / "calculation")
    assert happened() == {kind: 1}
    assert result.energy == pytest.approx(emt_energy(alloy()), abs=2e-8)
    assert result.corrections == (f"{reason}: again, from where it had come",)


# What is not mended


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("segfault", "crash"),
        ("killed", "killed"),
        ("truncated", "unreadable_result"),
        ("silent", "error"),
        ("hopeless_scf", "unconverged_scf"),
        ("nan", "not_finite"),
        ("bad_incar", "wrong_input"),
    ],
)
def test_failures_have_a_reason(here, plan, tmp_path, kind, reason):
    plan({"kind": kind})
    with pytest.raises(CalculationError) as caught:
        make_engine().single_point(alloy(), tmp_path / "calculation")
    assert caught.value.reason == reason
    assert str(tmp_path) in str(caught.value)


def test_a_full_disk_is_not_the_structures_fault(here, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(file_engine, "DISK_WAITS_S", (0.0,))
    happened = plan({"kind": "disk_full", "times": 1})
    result = make_engine().single_point(alloy(), tmp_path / "calculation")
    assert happened() == {"disk_full": 1}
    assert result.converged
    plan({"kind": "disk_full"})
    with pytest.raises(EngineMissingError) as caught:
        make_engine().single_point(alloy(), tmp_path / "other")
    assert caught.value.reason == "disk_full"


def test_a_result_with_another_grid_is_none(here, plan, tmp_path):
    happened = plan({"kind": "brmix_of_the_grid"})
    with pytest.raises(CalculationError) as caught:
        make_engine().single_point(alloy(), tmp_path / "calculation")
    assert caught.value.reason == "settings_changed"
    assert "KPOINTS was G 12 12 12 0 0 0, became M 12 12 12 0 0 0" in str(caught.value)
    assert happened()["brmix_of_the_grid"] == 3


def test_a_relaxation_with_another_grid_ends_with_ours(here, plan, tmp_path):
    plan({"kind": "brmix_of_the_grid", "relax": True})
    atoms = alloy()
    result = make_engine().relax(atoms, tmp_path / "calculation", max_steps=60, **TOLERANCES)
    kpoints = (tmp_path / "calculation" / "static.1" / "KPOINTS").read_text()
    assert "Gamma" in kpoints
    assert result.converged
    assert any("KPOINTS generation_style = Monkhorst" in c for c in result.corrections)


def test_a_missing_executable_is_the_machines(here, tmp_path):
    engine = make_engine(command=["/no/such/vasp_std"])
    with pytest.raises(EngineMissingError) as caught:
        engine.single_point(alloy(), tmp_path)
    assert caught.value.reason == "missing_executable"


def test_what_a_launcher_does_not_find_is_the_machines(here, tmp_path):
    # As srun and env start what they are given.
    engine = make_engine(command=["env", "/no/such/vasp_std"])
    with pytest.raises(EngineMissingError) as caught:
        engine.single_point(alloy(), tmp_path)
    assert caught.value.reason == "missing_executable"


# Going on


def test_a_relaxation_that_runs_out_of_time_goes_on(here, plan, tmp_path):
    happened = plan({"kind": "slow", "relax": True, "seconds": 0.7, "times": 1})
    atoms = alloy()
    atoms.positions[1] += (0.2, 0.15, 0.0)
    # Three of its longest steps before the limit it is asked to stop, after the first look.
    engine = make_engine(timeout_s=3.5)
    result = engine.relax(atoms, tmp_path / "calculation", max_steps=60, **TOLERANCES)
    assert happened() == {"slow": 1}
    assert "time_limit: goes on from CONTCAR" in result.corrections
    assert result.converged
    assert result.energy == pytest.approx(emt_energy(geometry(atoms, result)), abs=1e-6)
    begun = (tmp_path / "calculation" / "inputs" / "POSCAR").read_text()
    assert f"{atoms.cell[0, 0]:.6f}" not in begun, "it begins where it had come"
    grid = (tmp_path / "calculation" / "inputs" / "KPOINTS").read_text()
    assert "12 12 12" in grid, "with the grid of its start"


def test_a_half_written_contcar_is_not_gone_on_from(here, plan, tmp_path):
    happened = plan({"kind": "half_contcar", "relax": True, "times": 1})
    atoms = alloy()
    folder = tmp_path / "calculation"
    engine = make_engine()
    result = engine.relax(atoms, folder, max_steps=60, **TOLERANCES)
    assert happened() == {"half_contcar": 1}
    assert result.corrections == ("killed: again, from where it had come",)
    begun = (folder / "inputs" / "POSCAR").read_text()
    assert f"{atoms.cell[0, 0]:.6f}" in begun, "it begins at the start, not at half a CONTCAR"
    assert result.converged


# Processes of their own


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def processes_in(directory):
    """Processes whose working folder is below this one."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                folder = str((entry / "cwd").readlink())
                command = (entry / "cmdline").read_bytes()
                if folder.startswith(str(directory)):
                    found[int(entry.name)] = command
    return found


WORKER = """
import sys
from pathlib import Path
from ase.build import bulk
from hullscreen.dft_adapters.engine import load_engine
engine = load_engine({"engine": "vasp", "potcar_spec": True, "command": sys.argv[2:]})
engine.single_point(bulk("Cu"), Path(sys.argv[1]))
"""


def test_a_killed_worker_leaves_neither_custodian_nor_vasp(environment, plan, tmp_path):
    plan({"kind": "frozen"})
    folder = tmp_path / "calculation"
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), sys.executable, str(FAKE_VASP)]
    )
    wait_for(lambda: any(b"vasp_std" in c for c in processes_in(folder / "static.1").values()))
    assert any(b"vasp_job" in c for c in processes_in(folder).values())
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    wait_for(lambda: not processes_in(folder), seconds=20.0)


def test_the_process_of_custodian_computes_and_costs_are_told(plan, tmp_path):
    """What custodian has mended is not taken for a failure: it prints nothing of it."""
    plan({"kind": "edddav"})
    folder = tmp_path / "calculation"
    result = make_engine().single_point(alloy(), folder)
    assert result.energy == pytest.approx(emt_energy(alloy()), abs=2e-8)
    assert result.corrections == (MENDED["edddav"],)
    assert (folder / "output.txt").read_text() + (folder / "errors.txt").read_text() == ""
    # Python, custodian and the stand-in take about three seconds of a core: at least one.
    assert 1.0 < result.cpu_seconds < 60.0


def inputs_of(directory):
    """Input files of a single point."""
    make_engine().write_inputs(
        alloy(), directory, file_engine.Task("single_point"), file_engine.Attempt()
    )
    return list((directory / "inputs").iterdir())


def test_the_stand_in_says_what_it_is(environment, tmp_path):
    for path in inputs_of(tmp_path):
        shutil.copy(path, tmp_path / path.name.replace(".static", ""))
    done = subprocess.run(
        [sys.executable, str(FAKE_VASP)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "a test tool, energies are EMT's" in done.stdout
    assert "not DFT" in (tmp_path / "OUTCAR").read_text()


@pytest.mark.parametrize("word", ["LSTOP", "LABORT"])
def test_electrons_that_somebody_stopped_are_no_label(environment, plan, tmp_path, word):
    """LABORT leaves fewer electronic steps than NELM, which looks like convergence."""
    from hullscreen.dft_adapters.vasp_custodian import was_stopped

    for path in inputs_of(tmp_path):
        shutil.copy(path, tmp_path / path.name.replace(".static", ""))
    (tmp_path / "STOPCAR").write_text(f"{word} = .TRUE.\n")
    subprocess.run([sys.executable, str(FAKE_VASP)], cwd=tmp_path, check=True, capture_output=True)
    # A single point has no ionic step after which it could stop.
    assert was_stopped(tmp_path, late=False) == (word == "LABORT")
    (tmp_path / "OUTCAR").write_text("half an OUTCAR")
    assert was_stopped(tmp_path, late=True)
    assert not was_stopped(tmp_path, late=False)


def test_a_relaxation_that_somebody_stops_goes_on(here, tmp_path):
    """Without a time limit; the stop is not there when it begins again."""
    stopping = tmp_path / "vasp_std"
    once = f"[ -e {tmp_path}/stopped ] || echo LSTOP = .TRUE. > STOPCAR; touch {tmp_path}/stopped"
    stopping.write_text(f"#!/bin/sh\n{once}\nexec {sys.executable} {FAKE_VASP}\n")
    stopping.chmod(0o755)
    engine = make_engine(command=[str(stopping)])
    result = engine.relax(alloy(), tmp_path / "calculation", max_steps=60, **TOLERANCES)
    assert result.converged
    assert "time_limit: goes on from CONTCAR" in result.corrections


def test_a_single_point_that_somebody_stops_says_so(here, tmp_path):
    stopping = tmp_path / "vasp_std"
    stopping.write_text(
        f"#!/bin/sh\n{sys.executable} {FAKE_VASP}\necho 'hard stop encountered!' >> OUTCAR\n"
    )
    stopping.chmod(0o755)
    with pytest.raises(CalculationError, match="by a STOPCAR that somebody put there"):
        make_engine(command=[str(stopping)]).single_point(alloy(), tmp_path / "calculation")


def test_a_single_point_that_runs_out_of_time_is_not_tried_again(here, plan, tmp_path):
    happened = plan({"kind": "slow_scf", "seconds": 0.5})
    with pytest.raises(CalculationError) as caught:
        make_engine(timeout_s=1.5).single_point(alloy(), tmp_path / "calculation")
    assert caught.value.reason == "timeout"
    assert happened() == {"slow_scf": 1}


def test_a_run_with_potcars_of_the_users(here, plan, tmp_path):
    """Made-up files in the layout of VASP's; custodian's handlers read them too."""
    folder = tmp_path / "psp" / "POT_GGA_PAW_PBE_54"
    folder.mkdir(parents=True)
    for symbol in ("Cu", "Pd"):
        (folder / f"POTCAR.{symbol}").write_text(
            f"  PAW_PBE {symbol} 01Jan2000\n   11.0000\n parameters from PSCTR are:\n"
            f"   VRHFIN ={symbol}: made up\n   LEXCH  = PE\n"
            "   ENMAX  =  295.446; ENMIN  =  221.585 eV\n   POMASS =   63.546; ZVAL   =   11.000\n"
            f"   TITEL  = PAW_PBE {symbol} 01Jan2000\n"
            "END of PSCTR-controll parameters\n local part\n"
            "  0.1000000E+01 -0.2500000E+01  0.3000000E+00\n End of Dataset\n"
        )
    happened = plan({"kind": "too_few_bands"})
    engine = make_engine(
        potcar_spec=False, potcar_directory=str(tmp_path / "psp"), potcars={"Cu": "Cu"}
    )
    result = engine.single_point(alloy(), tmp_path / "calculation")
    assert happened() == {"too_few_bands": 1}
    assert result.corrections == ("too_few_bands: NBANDS = 15",)
    text = (tmp_path / "calculation" / "static.1" / "vasprun.xml").read_text()
    assert "PAW_PBE Pd 01Jan2000" in text
