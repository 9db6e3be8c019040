"""``pw.x`` for real, on the LDA aluminium and nickel of Debian's package."""

import json
import os
import shutil
import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.units import GPa

from hullscreen.dft_adapters.engine import CalculationError, EngineMissingError, load_engine
from hullscreen.dft_adapters.kpoints import kpoint_grid

pytestmark = pytest.mark.qe

QUICK = {"cutoff_ry": 20, "density_cutoff_ry": 160, "kpoint_spacing": 0.12, "spin": False}
RELAX = {"force_tolerance": 0.02, "stress_tolerance": 0.5 * GPa, "max_steps": 30}


@pytest.fixture
def engine(pw_x):
    """Make the engine with quick settings and changes to them."""
    return lambda **changes: load_engine({"engine": "quantum_espresso", **QUICK, **changes})


def nickel_aluminide(a=2.83):
    return Atoms("NiAl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[a] * 3, pbc=True)


def distorted(a=2.83):
    """No symmetry left that would hide a force or a shear."""
    atoms = nickel_aluminide(a)
    atoms.positions[1] += [0.08, 0.05, -0.03]
    return atoms


@pytest.mark.slow
def test_formation_energy_of_nickel_aluminide(pw_x, tmp_path):
    energies = {}
    for name, atoms, spin in (
        ("NiAl", nickel_aluminide(), False),
        ("Al", bulk("Al", a=3.95), False),
        ("Ni", bulk("Ni", a=3.42), True),
    ):
        engine = load_engine({"engine": "quantum_espresso", "kpoint_spacing": 0.05, "spin": spin})
        engine.check(sorted(set(atoms.symbols)))
        result = engine.relax(atoms, tmp_path / name, **RELAX)
        assert result.converged
        assert result.n_evaluations >= 2
        energies[name] = result.energy / len(atoms)
    formation = energies["NiAl"] - 0.5 * energies["Al"] - 0.5 * energies["Ni"]
    # The same settings gave -0.752 elsewhere; 5 meV/atom cover k-points at another start volume.
    assert formation == pytest.approx(-0.752, abs=0.005)


def test_forces_and_stress_are_derivatives_of_the_energy(engine, tmp_path):
    espresso = engine()
    middle = espresso.single_point(distorted(), tmp_path / "middle")
    energies = {}
    for sign in (-1, 1):
        moved = distorted()
        moved.positions[1, 0] += sign * 0.02
        energies["force", sign] = espresso.single_point(moved, tmp_path / f"force{sign}").energy
        # One shear-free strain along x: it sees the sign and the size of the stress.
        strained = distorted()
        strained.set_cell(strained.cell[:] @ np.diag([1 + sign * 0.005, 1, 1]), scale_atoms=True)
        energies["stress", sign] = espresso.single_point(
            strained, tmp_path / f"stress{sign}"
        ).energy
    slope = (energies["force", 1] - energies["force", -1]) / 0.04
    # The cubic term of the difference quotient.
    assert middle.forces[1, 0] == pytest.approx(-slope, abs=0.02)
    assert abs(middle.forces[1, 0]) > 0.1
    assert middle.forces.sum(axis=0) == pytest.approx(np.zeros(3), abs=1e-3)
    slope = (energies["stress", 1] - energies["stress", -1]) / 0.01 / distorted().get_volume()
    # Plane waves change in number with the cell at this low cutoff (Pulay stress): 3 GPa.
    assert middle.stress[0, 0] == pytest.approx(slope, abs=3 * GPa)
    assert middle.stress == pytest.approx(middle.stress.T)


def test_a_compressed_crystal_has_negative_stress_in_ase_sign(engine, tmp_path):
    small = engine().single_point(nickel_aluminide(2.6), tmp_path / "small")
    large = engine().single_point(nickel_aluminide(3.1), tmp_path / "large")
    assert small.stress[0, 0] < -20 * GPa
    assert large.stress[0, 0] > 5 * GPa
    assert (small.converged, small.n_evaluations, small.reason) == (True, 1, "")
    assert small.cpu_seconds > 0.05


def test_a_finished_calculation_is_taken_not_repeated(engine, tmp_path):
    aluminium = bulk("Al", a=3.95)
    first = engine().single_point(aluminium, tmp_path)
    assert not (tmp_path / "scratch").exists()
    # 1 MB: no wavefunctions or densities are left.
    assert sum(p.stat().st_size for p in tmp_path.rglob("*")) < 1e6
    start = time.perf_counter()
    again = engine().single_point(aluminium, tmp_path)
    assert time.perf_counter() - start < 0.2
    assert (again.energy, again.cpu_seconds) == (first.energy, first.cpu_seconds)
    assert np.array_equal(again.stress, first.stress)
    # Another input in the same folder is another calculation.
    stretched = engine().single_point(bulk("Al", a=4.05), tmp_path)
    assert stretched.energy != first.energy
    # A torn result counts as none.
    (tmp_path / "result.json").write_text('{"inputs_hash": "')
    assert engine().single_point(bulk("Al", a=4.05), tmp_path).energy == pytest.approx(
        stretched.energy, abs=1e-6
    )


def test_magnetism_of_nickel_is_found(engine, tmp_path):
    polarised = engine(spin=True).single_point(bulk("Ni", a=3.5), tmp_path / "spin")
    plain = engine().single_point(bulk("Ni", a=3.5), tmp_path / "plain")
    assert "nspin            = 2" in (tmp_path / "spin" / "pw.in").read_text()
    assert "nspin" not in (tmp_path / "plain" / "pw.in").read_text()
    # Ferromagnetic nickel lies tens of meV below; any gain at all shows that it was found.
    assert polarised.energy < plain.energy - 0.002


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"extra_input": {"control": {"max_seconds": 0.05}}}, "time_limit"),
        ({"extra_input": {"system": {"smearing": "mystery"}}}, "wrong_input"),
        ({"timeout_s": 0.2, "cutoff_ry": 60, "density_cutoff_ry": 480}, "timeout"),
    ],
)
def test_failures_have_reasons_and_are_never_results(engine, tmp_path, changes, reason):
    with pytest.raises(CalculationError) as caught:
        engine(**changes).single_point(nickel_aluminide(), tmp_path)
    assert caught.value.reason == reason
    assert caught.value.directory == tmp_path
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "result.json").exists()
    assert not (tmp_path / "scratch").exists()


def test_a_damaged_pseudopotential(engine, tmp_path, debian_pseudopotentials):
    whole = (debian_pseudopotentials / "Al.pz-vbc.UPF").read_text()
    (tmp_path / "Al.UPF").write_text(whole[:3000] + "</UPF>")
    broken = engine(pseudopotentials=str(tmp_path), files={"Al": "Al.UPF"})
    with pytest.raises(EngineMissingError) as caught:
        broken.single_point(bulk("Al", a=3.95), tmp_path / "run")
    assert caught.value.reason == "unreadable_pseudopotential"


def test_two_atoms_in_one_place(engine, tmp_path):
    atoms = nickel_aluminide()
    atoms.positions[1] = atoms.positions[0]
    with pytest.raises(CalculationError) as caught:
        engine().single_point(atoms, tmp_path)
    assert caught.value.reason == "overlapping_atoms"


def test_the_step_limit_gives_the_last_geometry_computed(engine, tmp_path):
    # 2.95 and 2.82 Å have the same grid of k-points at this spacing.
    result = engine().relax(nickel_aluminide(2.95), tmp_path, **{**RELAX, "max_steps": 2})
    assert (result.converged, result.reason, result.n_evaluations) == (False, "step_limit", 2)
    alone = engine().single_point(
        Atoms("NiAl", positions=result.positions, cell=result.cell, pbc=True), tmp_path / "alone"
    )
    # The same cell in the plane waves of the start cell: a few meV of basis set.
    assert result.energy == pytest.approx(alone.energy, abs=0.03)
    assert result.cell[0, 0] < 2.94


def test_grids_do_not_flip_between_equal_axes():
    assert kpoint_grid(np.diag([2.5, 2.5 + 1e-9, 2.5 - 1e-9]), 0.1) == (4, 4, 4)
    assert kpoint_grid(np.diag([30.0, 5.0, 2.0]), 0.05) == (1, 4, 10)


def test_check_says_what_is_missing(engine):
    engine().check(["Al", "Ni"])
    with pytest.raises(EngineMissingError, match="no LDA pseudopotential for Fe, only for Al, Au"):
        engine().check(["Al", "Fe"])
    with pytest.raises(EngineMissingError, match=r"'pw-7\.x' was not found on PATH"):
        engine(command="env -i pw-7.x").check(["Al"])


def test_the_result_file_is_plain_json(engine, tmp_path):
    result = engine().single_point(bulk("Al", a=3.95), tmp_path)
    document = json.loads((tmp_path / "result.json").read_text())
    assert document["result"]["energy"] == result.energy


def test_refused_input_is_quoted(engine, tmp_path):
    with pytest.raises(CalculationError, match="was refused its input") as caught:
        engine(extra_input={"electrons": {"mixng_beta": 0.3}}).single_point(
            bulk("Al", a=3.95), tmp_path
        )
    assert caught.value.reason == "wrong_input"
    assert "bad line in namelist &electrons" in str(caught.value)
    assert "mixng_beta" in str(caught.value)
    assert "look at extra_input under [dft.quantum_espresso]" in str(caught.value)


@pytest.mark.skipif(
    shutil.which("mpirun") is None or os.geteuid() != 0, reason="needs mpirun and to be root"
)
def test_a_launcher_that_refuses_to_start_is_the_machines_failure(engine, tmp_path, monkeypatch):
    for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
        monkeypatch.delenv(name, raising=False)
    espresso = engine(command=["mpirun", "-np", "2", "pw.x"])
    with pytest.raises(EngineMissingError, match="attempt to run as root") as caught:
        espresso.single_point(bulk("Al", a=3.95), tmp_path)
    assert caught.value.reason == "launcher"
