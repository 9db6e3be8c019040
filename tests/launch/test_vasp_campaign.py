"""A campaign with VASP's stand-in under custodian: failures, a killed worker, and EMT's hull."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

FAKE_VASP = Path(__file__).parents[1] / "fake_vasp" / "vasp_std"
SETTINGS = """
[campaign]
name = "vasp"
elements = ["Cu", "Pd"]
[prototypes]
max_atoms = 2
lattices = ["fcc", "bcc"]
aflow = false
[potential]
level_first = 4
level_second = 4
radial_basis_size = 4
cutoff_angstrom = 4.5
[learning]
first_wave = 20
max_selected_per_wave = 6
[screening]
validation_structures = 4
[dft]
engine = "vasp"
structures_per_job = 3
[dft.vasp]
command = "{python} {fake_vasp}"
potcar_spec = true
monitor_every_s = 0.5
frozen_after_s = 8.0
[launch]
workers = 2
"""
# Failures of single points that are mended in the run, one in every second run from the first on,
# and then those that go away when it is run once more.
MENDED = (
    "edddav", "brmix", "pricel", "inv_rot_mat", "posmap", "too_few_bands", "unconverged",
    "positive_energy", "eddrmm", "frozen",
)  # fmt: skip
ONCE = ("segfault", "killed", "truncated")
# Failures of relaxations: of the compound's, and of all that take more than a step.
RELAXING = ("zbrent", "potim")
TELLING = {
    "edddav": "edddav: ", "brmix": "brmix: ", "pricel": "pricel: ", "inv_rot_mat": "inv_rot_mat: ",
    "posmap": "posmap: ", "too_few_bands": "too_few_bands: ", "unconverged": "Unconverged: ",
    "positive_energy": "Positive energy: ", "eddrmm": "eddrmm: ", "segfault": "crash: again",
    "killed": "killed: again", "truncated": "unreadable_result: again", "frozen": "Frozen job: ",
    "zbrent": "zbrent: ", "potim": "POTIM: ",
}  # fmt: skip
# Relaxations end where forces are below 0.01 eV/Å and stresses below 0.1 GPa: with force constants
# of some eV/Å² and a bulk modulus above 100 GPa that is within 0.05 meV/atom of the minimum.
ENERGY_TOLERANCE_EV_PER_ATOM = 2e-4
WAIT_S = 240.0


def environment(plan):
    paths = [path for path in sys.path if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "FAKE_VASP_FAILURES": str(plan)}


def hullscreen(*words):
    return [sys.executable, "-m", "hullscreen.launch", *map(str, words)]


def command_lines():
    """Words of the command line of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                found[int(entry.name)] = words
    return found


def folder_of(pid):
    try:
        return str(Path(f"/proc/{pid}/cwd").readlink())
    except OSError:
        return ""


def at_work(directory):
    """Processes of VASP and custodian that compute below this folder, with their folders."""
    below = {pid: folder_of(pid) for pid in command_lines()}
    return {pid: f for pid, f in below.items() if f.startswith(str(directory / "calculations"))}


def kill_a_worker(directory, process):
    """Kill a worker whose VASP runs; returns the processes that it leaves."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "the campaign ended before its worker was killed"
        lines = command_lines()
        for pid, folder in at_work(directory).items():
            words = lines.get(pid, [])
            if any("vasp_job" in w for w in words) and any("guardian" in w for w in words):
                worker = int(words[words.index(next(w for w in words if "guardian" in w)) + 1])
                left = {p for p, f in at_work(directory).items() if f.startswith(folder)}
                if any(str(FAKE_VASP) in lines.get(p, []) for p in left):
                    os.kill(worker, signal.SIGKILL)
                    return left
        time.sleep(0.02)
    raise AssertionError("no worker ever ran VASP")


def emt_hull(store):
    """Stable compositions and their formation energies: every prototype relaxed with EMT."""
    from ase import Atoms
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

    from hullscreen.dft_adapters.engine import load_engine

    engine = load_engine({"engine": "ase", "calculator": "ase.calculators.emt:EMT"})
    pool = store.structures({}, geometry="start").structures
    entries = []
    for index in range(len(pool.offsets) - 1):
        cell, positions, species = pool.one(index)
        symbols = [("Cu", "Pd")[k] for k in species]
        relaxed = engine.relax(
            Atoms(symbols, cell=cell, positions=positions, pbc=True),
            Path("unused"), force_tolerance=0.002, stress_tolerance=0.02 / 160.2, max_steps=300,
        )  # fmt: skip
        entries.append(PDEntry(Atoms(symbols).get_chemical_formula(), relaxed.energy))
    diagram = PhaseDiagram(entries)
    return {
        entry.composition.reduced_formula: diagram.get_form_energy_per_atom(entry)
        for entry in diagram.stable_entries
    }


@pytest.mark.slow
@pytest.mark.vasp
def test_a_campaign_survives_vasp_and_ends_with_emts_hull(tmp_path):
    from hullscreen.launch.campaign_session import open_session

    directory, plan = tmp_path / "campaign", tmp_path / "plan.json"
    directory.mkdir()
    (directory / "hullscreen.toml").write_text(
        SETTINGS.format(python=sys.executable, fake_vasp=FAKE_VASP)
    )
    rules = [
        {"kind": kind, "relax": False, "numbers": [2 * place + 1]}
        for place, kind in enumerate(MENDED)
    ]
    rules += [
        # Numbers that are three apart: what is run once more must not fail in the next way.
        {"kind": kind, "relax": False, "numbers": [2 * len(MENDED) + 3 * place + 1], "times": 1}
        for place, kind in enumerate(ONCE)
    ]
    rules += [
        {"kind": RELAXING[0], "relax": True, "formula": "CuPd"},
        {"kind": RELAXING[1], "relax": True},
    ]
    plan.write_text(json.dumps(rules))
    began = time.monotonic()
    with subprocess.Popen(hullscreen("run", directory), env=environment(plan)) as process:
        left = kill_a_worker(directory, process)
        deadline = time.monotonic() + 20.0
        while left & set(at_work(directory)):
            assert time.monotonic() < deadline, "VASP or custodian outlived its worker"
            time.sleep(0.05)
        assert process.wait(timeout=1200) == 0
    print(f"the campaign took {time.monotonic() - began:.0f} s")
    assert not at_work(directory), "processes outlived the campaign"

    told = subprocess.run(
        hullscreen("hull", directory, "--json"),
        env=environment(plan), capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    stable = {
        phase["formula_pretty"]: phase["formation_energy_per_atom"]
        for phase in json.loads(told.stdout)["stable"]
    }
    happened = Counter(json.loads(plan.with_suffix(".counts").read_text())["happened"])
    with open_session(directory) as session:
        documents = list(
            session.connection.database["dft_results"].find(
                {}, {"corrections": 1, "state": 1, "reason": 1}
            )
        )
        expected = emt_hull(session.store)
    print(f"{len(documents)} calculations; failures: {dict(happened)}")
    assert set(happened) == {*MENDED, *ONCE, *RELAXING}
    failed = [document["reason"] for document in documents if document["state"] != "done"]
    assert not failed
    corrections = [c for document in documents for c in document["corrections"]]
    missing = {kind for kind in happened if not any(TELLING[kind] in c for c in corrections)}
    assert not missing, f"nothing is told of {missing}: {corrections}"
    assert set(stable) == set(expected)
    for formula, energy in expected.items():
        assert stable[formula] == pytest.approx(energy, abs=ENERGY_TOLERANCE_EV_PER_ATOM)
    assert np.isfinite(list(stable.values())).all()
