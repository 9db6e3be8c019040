"""The real ``pw.x`` made to fail: what is mended gives the energy that it gives undisturbed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk
from ase.io.espresso import read_espresso_in
from ase.units import GPa

from hullscreen.dft_adapters import file_engine
from hullscreen.dft_adapters.corrections import JOURNAL_FILE, MAX_CORRECTIONS
from hullscreen.dft_adapters.engine import (
    CalculationError,
    EngineMissingError,
    fingerprint,
    load_engine,
)
from hullscreen.dft_adapters.espresso_failures import CORRECTIONS

pytestmark = pytest.mark.qe

QUICK = {"cutoff_ry": 12, "density_cutoff_ry": 48, "kpoint_spacing": 0.1, "spin": False}
RELAX = {"force_tolerance": 0.02, "stress_tolerance": 0.5 * GPa, "max_steps": 40}
# Two self-consistent calculations of one structure, each converged to 1e-9 Ry/atom.
SAME_ENERGY_EV = 1e-5
# Two relaxations of one crystal that end anywhere within the tolerances above: 0.5 GPa is a tenth
# of this; one that goes on has the plane waves of a cell nearer to the end, at a low cutoff.
SAME_MINIMUM_EV = 2e-3
XML = "scratch/pwscf.save/data-file-schema.xml"
# What pw.x says or does when it fails so, where that cannot be brought about in a second.
SAYINGS = {
    "unconverged_scf": "echo '     convergence NOT achieved after   3 iterations'; exit 2",
    "time_limit": "echo '     Maximum CPU time exceeded'; exit 2",
    "stopped": "echo '     Program stopped by user request'; exit 2",
    "killed": "kill -9 $$",
    "crash": "echo 'Fortran runtime error: End of file' >&2; exit 2",
    "unknown_failure": "echo '     Program PWSCF'; exit 7",
    "unreadable_result": f"mkdir -p scratch/pwscf.save; echo '<espresso' > {XML}; exit 0",
    "no_result": "exit 0",
    "scratch_files": "echo '     Error in routine davcio (1):'; exit 1",
    "too_few_bands": "echo '     too few bands'; exit 1",
    "wrong_charge": "echo '     charge is wrong'; exit 1",
    "diagonalisation": "echo '     S matrix not positive definite'; exit 48",
    "mixing": "echo '     Error in routine broyden (1):'; exit 1",
    "cell_factor": "echo '     Not enough space allocated for radial FFT: try'; exit 1",
    "symmetry": "echo '     not orthogonal operation'; exit 1",
}


def two_atoms():
    """Aluminium without symmetry; a second's work."""
    cell, fractions = [2.84, 2.80, 4.0], [[0, 0, 0], [0.53, 0.52, 0.48]]
    return Atoms("Al2", cell=cell, scaled_positions=fractions, pbc=True)


@pytest.fixture
def engine(pw_x):
    """Make the engine with quick settings and changes to them."""
    return lambda **changes: load_engine({"engine": "quantum_espresso", **QUICK, **changes})


@pytest.fixture
def disturbed(pw_x, executable, tmp_path):
    """Make a program that runs pw.x, $REAL, in its own way; $n counts its runs."""
    log = tmp_path / "runs"

    def make(script):
        log.unlink(missing_ok=True)
        return executable(f"echo x >> {log}; n=$(wc -l < {log}); REAL={pw_x}\n{script}\n")

    make.count = lambda: len(log.read_text().split())
    return make


@pytest.fixture(scope="module")
def undisturbed(pw_x, tmp_path_factory):
    """Single point of `two_atoms`."""
    quick = load_engine({"engine": "quantum_espresso", **QUICK})
    return quick.single_point(two_atoms(), tmp_path_factory.mktemp("undisturbed"))


def nothing_left(directory):
    """Neither scratch files nor a journal."""
    return not {"scratch", JOURNAL_FILE} & {path.name for path in directory.iterdir()}


@pytest.mark.parametrize(
    ("reason", "number"),
    [
        (reason, number)
        for reason in SAYINGS
        for number in range(min(len(CORRECTIONS[reason]), MAX_CORRECTIONS))
        # Those of a kind need no repetition.
        if number == 0 or CORRECTIONS[reason][number] != CORRECTIONS[reason][number - 1]
    ],
)
def test_no_correction_changes_the_energy(engine, disturbed, undisturbed, tmp_path, reason, number):
    """Each is tried with the others for this failure before it, as they would be."""
    command = disturbed(f'if [ $n -le {number + 1} ]; then {SAYINGS[reason]}; fi; exec $REAL "$@"')
    result = engine(command=command).single_point(two_atoms(), tmp_path / "run")
    assert result.corrections == tuple(
        f"{reason}: {correction.name}" for correction in CORRECTIONS[reason][: number + 1]
    )
    assert result.energy == pytest.approx(undisturbed.energy, abs=SAME_ENERGY_EV)
    # 10 meV/Å and 0.1 GPa: what both are converged to.
    assert result.forces == pytest.approx(undisturbed.forces, abs=0.01)
    assert result.stress == pytest.approx(undisturbed.stress, abs=0.1 * GPa)
    assert result.n_evaluations == number + 2
    assert nothing_left(tmp_path / "run")


def test_every_correction_is_tried_here():
    # The others are for relaxations and clocks, and have tests of their own.
    assert set(CORRECTIONS) - set(SAYINGS) == {"timeout", "stalled"}


def test_unconverged_scf_is_mended_by_mixing(engine, undisturbed, tmp_path):
    result = engine(max_scf_steps=3).single_point(two_atoms(), tmp_path)
    assert result.corrections == ("unconverged_scf: slower mixing (0.3) and more iterations",)
    assert result.energy == pytest.approx(undisturbed.energy, abs=SAME_ENERGY_EV)
    assert result.n_evaluations == 2
    assert result.cpu_seconds > 0.5 * undisturbed.cpu_seconds
    written = (tmp_path / "pw.in").read_text()
    assert "mixing_beta      = 0.3" in written
    assert "electron_maxstep = 200" in written
    assert "convergence NOT achieved after   3" in (tmp_path / "output-1.txt").read_text()


def test_what_never_converges_is_given_up_with_all_that_was_tried(engine, disturbed, tmp_path):
    command = disturbed(
        "sed -i 's/electron_maxstep.*/electron_maxstep = 2/' pw.in; exec $REAL \"$@\""
    )
    for _ in range(2):  # a journal left behind would make the second time shorter
        with pytest.raises(CalculationError, match="did not reach self-consistency") as caught:
            engine(command=command).single_point(two_atoms(), tmp_path / "run")
        assert caught.value.reason == "unconverged_scf"
        assert len(caught.value.corrections) == 3
        assert f"(after corrections: {'; '.join(caught.value.corrections)})" in str(caught.value)
        assert nothing_left(tmp_path / "run")
    assert disturbed.count() == 2 * 4


def test_unconverged_in_the_middle_of_a_relaxation(engine, disturbed, tmp_path):
    start = bulk("Al", a=3.8)
    calm = engine().relax(start, tmp_path / "calm", **RELAX)
    command = disturbed(
        "[ $n = 1 ] && sed -i 's/electron_maxstep.*/electron_maxstep = 5/' pw.in\nexec $REAL \"$@\""
    )
    mended = engine(command=command).relax(start, tmp_path / "run", **RELAX)
    assert mended.corrections == ("unconverged_scf: slower mixing (0.3) and more iterations",)
    assert mended.energy == pytest.approx(calm.energy, abs=SAME_MINIMUM_EV)
    assert mended.converged


def first_time_limit(seconds):
    """The first run has less time than it needs; what follows has all it wants."""
    return (
        f"if [ $n = 1 ]; then limit={seconds}; else limit=1000; fi\n"
        'sed -i "s/max_seconds.*/max_seconds = $limit/" pw.in\n'
        'exec $REAL "$@"'
    )


def test_pw_x_is_asked_to_stop_before_it_is_killed(engine, tmp_path):
    engine(timeout_s=50).single_point(bulk("Al", a=3.95), tmp_path)
    assert "max_seconds      = 45.0" in (tmp_path / "pw.in").read_text()


def test_a_single_point_out_of_time_goes_on_where_it_was(engine, disturbed, tmp_path):
    dense = {"kpoint_spacing": 0.04}  # two seconds of work
    calm = engine(**dense).single_point(two_atoms(), tmp_path / "calm")
    command = disturbed(first_time_limit(0.7))
    late = engine(**dense, timeout_s=600, command=command)
    result = late.single_point(two_atoms(), tmp_path / "run")
    assert result.corrections == ("time_limit: gone on where its time was up",)
    assert "Maximum CPU time exceeded" in (tmp_path / "run" / "output-1.txt").read_text()
    assert "Calculation restarted from" in (tmp_path / "run" / "output.txt").read_text()
    assert result.energy == pytest.approx(calm.energy, abs=SAME_ENERGY_EV)
    assert result.forces == pytest.approx(calm.forces, abs=0.01)
    assert nothing_left(tmp_path / "run")


def energies(path):
    """Converged energies of an output, Ry."""
    lines = path.read_text().splitlines()
    return [float(line.split()[-2]) for line in lines if line.startswith("!    total energy")]


def ionic_steps(path):
    return len(energies(path))


def grid(directory):
    lines = (directory / "pw.in").read_text().splitlines()
    return next(lines[i + 1] for i, line in enumerate(lines) if line.startswith("K_POINTS"))


@pytest.fixture(scope="module")
def flipping():
    """A relaxation of eight steps whose end would have another grid of k points."""
    return bulk("Al", a=4.5)


# Eight divisions down to a lattice constant of 4.45 Å, nine below.
FLIPPING = {"kpoint_spacing": 3**0.5 / 4.45 / 8, "cutoff_ry": 15, "density_cutoff_ry": 60}


@pytest.fixture(scope="module")
def undisturbed_relaxation(pw_x, flipping, tmp_path_factory):
    """Its result and the folder."""
    folder = tmp_path_factory.mktemp("relaxed")
    quick = load_engine({"engine": "quantum_espresso", **QUICK, **FLIPPING})
    return quick.relax(flipping, folder, **RELAX), folder


def test_a_relaxation_out_of_time_goes_on_where_it_was(
    engine, disturbed, flipping, undisturbed_relaxation, tmp_path
):
    calm, folder = undisturbed_relaxation
    late = engine(**FLIPPING, timeout_s=600, command=disturbed(first_time_limit(0.5)))
    result = late.relax(flipping, tmp_path / "run", **RELAX)
    assert result.converged
    gone_on, *more = result.corrections
    assert gone_on == "time_limit: gone on where its time was up"
    # pw.x cannot go on in its last scf, that in the plane waves of the final cell.
    assert more in ([], ["scratch_files: run again"])
    assert result.energy == pytest.approx(calm.energy, abs=SAME_MINIMUM_EV)
    assert grid(tmp_path / "run") == grid(folder)
    outputs = (tmp_path / "run").glob("output*.txt")
    # It did not begin again; the step in which it was stopped is in one of the files only.
    assert result.n_evaluations == pytest.approx(sum(map(ionic_steps, outputs)), abs=1)


STOP = """
if [ $n = 1 ]; then
  $REAL "$@" & pid=$!
  until grep -q 'number of bfgs steps *= *3' output.txt; do sleep 0.005; done
  touch scratch/pwscf.EXIT
  wait $pid; exit $?
fi
exec $REAL "$@"
"""


def test_a_relaxation_that_is_stopped_goes_on_where_it_was(
    engine, disturbed, flipping, undisturbed_relaxation, tmp_path
):
    calm, folder = undisturbed_relaxation
    dense = {**FLIPPING, "cutoff_ry": 30, "density_cutoff_ry": 120}  # slow enough to be stopped
    stopped = engine(**dense, command=disturbed(STOP))
    result = stopped.relax(flipping, tmp_path / "run", **RELAX)
    assert result.converged
    assert result.corrections[0] == "stopped: gone on where it was stopped"
    # As long as the energies differ by no more than aluminium's at half the cutoff.
    assert result.energy == pytest.approx(calm.energy, abs=0.05)
    assert grid(tmp_path / "run") == grid(folder)
    last = tmp_path / "run" / "output.txt"
    assert 0 < ionic_steps(last) < ionic_steps(folder / "output.txt")


def test_a_relaxation_whose_atoms_have_moved_goes_on_where_it_was(engine, disturbed, tmp_path):
    """pw.x then says that positions "from input" are discarded, which is no failure."""
    stopped = engine(command=disturbed(STOP))
    result = stopped.relax(two_atoms(), tmp_path / "run", **RELAX)
    assert result.converged
    assert result.corrections[0] == "stopped: gone on where it was stopped"
    said = [path.read_text() for path in (tmp_path / "run").glob("output*.txt")]
    assert any("from file used, from input discarded" in text for text in said)


KILL = """
if [ $n = 1 ]; then
  $REAL "$@" & pid=$!
  until grep -q "$words" output.txt; do sleep 0.01; done
  kill -9 $pid; kill -9 $$
fi
exec $REAL "$@"
"""


def test_a_single_point_that_is_killed_is_run_again(engine, disturbed, tmp_path):
    dense = {"kpoint_spacing": 0.06}
    calm = engine(**dense).single_point(two_atoms(), tmp_path / "calm")
    command = disturbed("words='iteration #  2'\n" + KILL)
    result = engine(**dense, command=command).single_point(two_atoms(), tmp_path / "run")
    assert result.corrections == ("killed: run again",)
    assert (result.n_evaluations, calm.n_evaluations) == (2, 1)
    assert result.energy == pytest.approx(calm.energy, abs=SAME_ENERGY_EV)


def test_a_relaxation_whose_pw_x_is_killed(
    engine, disturbed, flipping, undisturbed_relaxation, tmp_path
):
    calm, folder = undisturbed_relaxation
    command = disturbed("words='number of bfgs steps *= *3'\n" + KILL)
    result = engine(**FLIPPING, command=command).relax(flipping, tmp_path / "run", **RELAX)
    assert result.corrections == ("killed: run again",)
    assert result.energy == pytest.approx(calm.energy, abs=SAME_MINIMUM_EV)
    assert grid(tmp_path / "run") == grid(folder)


WORKER = """
import sys, json
from hullscreen.dft_adapters.engine import load_engine
from ase.io import read
table, arguments = json.loads(sys.argv[1]), json.loads(sys.argv[2])
load_engine(table).relax(read(sys.argv[3]), __import__("pathlib").Path(sys.argv[4]), **arguments)
"""


def test_a_relaxation_whose_worker_is_killed(engine, flipping, undisturbed_relaxation, tmp_path):
    calm, folder = undisturbed_relaxation
    flipping.write(tmp_path / "start.xyz", format="extxyz")
    run = tmp_path / "run"
    table = {"engine": "quantum_espresso", **QUICK, **FLIPPING}
    words = [json.dumps(table), json.dumps(RELAX), tmp_path / "start.xyz", run]
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, *map(str, words)], env={**os.environ, "PYTHONPATH": paths}
    ) as worker:
        deadline = time.monotonic() + 100
        while not (run / "output.txt").is_file() or ionic_steps(run / "output.txt") < 4:
            assert worker.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        worker.send_signal(signal.SIGKILL)
    before = ionic_steps(run / "output.txt")
    assert (run / JOURNAL_FILE).is_file()
    assert not (run / "result.json").exists()
    result = engine(**FLIPPING).relax(flipping, run, **RELAX)
    assert result.converged
    # It was nobody's failure.
    assert result.corrections == ()
    assert result.energy == pytest.approx(calm.energy, abs=SAME_MINIMUM_EV)
    assert grid(run) == grid(folder)
    # It goes on from the last step, not from the start; the steps before it count.
    undisturbed, after = energies(folder / "output.txt"), energies(run / "output.txt")
    assert after[0] < undisturbed[1]
    assert result.n_evaluations == pytest.approx(before + len(after), abs=1)
    assert nothing_left(run)


def test_the_grid_of_the_start_is_not_that_of_the_end(undisturbed_relaxation, flipping):
    from hullscreen.dft_adapters.kpoints import kpoint_grid

    # Or the tests above could not see a flip.
    result, _ = undisturbed_relaxation
    spacing = FLIPPING["kpoint_spacing"]
    assert kpoint_grid(result.cell, spacing) != kpoint_grid(flipping.cell[:], spacing)


def test_too_few_bands(engine, undisturbed, tmp_path):
    result = engine(extra_input={"system": {"nbnd": 2}}).single_point(two_atoms(), tmp_path)
    assert result.corrections == ("too_few_bands: as many bands as pw.x takes by itself",)
    assert result.energy == pytest.approx(undisturbed.energy, abs=SAME_ENERGY_EV)


def test_a_cell_that_shrinks_beyond_its_tables(engine, tmp_path):
    start = bulk("Al", a=4.8)
    roomy = engine(extra_input={"cell": {"cell_factor": 4.0}})
    calm = roomy.relax(start, tmp_path / "calm", **RELAX)
    tight = engine(extra_input={"cell": {"cell_factor": 1.02}})
    result = tight.relax(start, tmp_path / "run", **RELAX)
    assert result.corrections == ("cell_factor: tables for a cell 4.0 times as large",)
    assert result.energy == pytest.approx(calm.energy, abs=SAME_MINIMUM_EV)
    # What was relaxed before it counts, and is not relaxed again.
    first, last = tmp_path / "run" / "output-1.txt", tmp_path / "run" / "output.txt"
    assert result.n_evaluations == pytest.approx(ionic_steps(first) + ionic_steps(last), abs=1)
    assert "restart_mode" not in (tmp_path / "run" / "pw.in").read_text()
    with (tmp_path / "run" / "pw.in").open() as stream:
        assert read_espresso_in(stream).get_volume() < start.get_volume()


def test_a_cell_that_collapses_is_given_up(engine, tmp_path):
    with pytest.raises(CalculationError) as caught:
        engine(kpoint_spacing=0.13).relax(bulk("Al", a=7.4), tmp_path, **RELAX)
    assert caught.value.reason in ("wrong_charge", "collapsed", "cell_factor")
    assert len(caught.value.corrections) <= MAX_CORRECTIONS


def test_a_nearly_symmetric_cell(engine, tmp_path):
    nearly = Atoms(
        "Al4", cell=[[4.0, 0, 0], [0, 4.0 + 3e-6, 0], [1e-6, 0, 4.0]],
        scaled_positions=[[0, 0, 0], [0.5, 0.5, 1e-5], [0.5, 0, 0.5], [0, 0.5, 0.5]], pbc=True,
    )  # fmt: skip
    result = engine().relax(nearly, tmp_path / "run", **RELAX)
    assert result.corrections == ("symmetry: no symmetry",)
    calm = engine(extra_input={"system": {"nosym": True}}).relax(nearly, tmp_path / "calm", **RELAX)
    assert result.energy == pytest.approx(calm.energy, abs=SAME_MINIMUM_EV)


def test_atoms_that_are_too_near_cannot_be_diagonalised(engine, tmp_path):
    near = Atoms("Ni2", cell=[4, 4, 4], positions=[[0, 0, 0], [0, 0, 0.08]], pbc=True)
    ultrasoft = engine(cutoff_ry=15, density_cutoff_ry=120)
    with pytest.raises(CalculationError, match="look for atoms that are too close") as caught:
        ultrasoft.single_point(near, tmp_path)
    assert caught.value.reason == "diagonalisation"
    assert len(caught.value.corrections) == 3
    assert nothing_left(tmp_path)


def test_two_atoms_in_one_place_are_given_up_at_once(engine, disturbed, tmp_path):
    atoms = two_atoms()
    atoms.positions[1] = atoms.positions[0]
    with pytest.raises(CalculationError, match="two atoms at the same place") as caught:
        engine(command=disturbed('exec $REAL "$@"')).single_point(atoms, tmp_path / "run")
    assert (caught.value.reason, caught.value.corrections) == ("overlapping_atoms", ())
    assert disturbed.count() == 1


@pytest.mark.parametrize(
    "damage",
    [
        "head -c 3000 $xml > part && mv part $xml",  # the end is missing
        ": > $xml",
        "tr -d '<' < $xml > part && mv part $xml",
        "rm $xml",
    ],
)
def test_a_damaged_xml_file(engine, disturbed, undisturbed, tmp_path, damage):
    script = f'$REAL "$@"; status=$?; xml={XML}; [ $n = 1 ] && {{ {damage}; }}; exit $status'
    result = engine(command=disturbed(script)).single_point(two_atoms(), tmp_path / "run")
    reason = "no_result" if damage.startswith("rm") else "unreadable_result"
    assert result.corrections == (f"{reason}: run again",)
    assert result.energy == pytest.approx(undisturbed.energy, abs=SAME_ENERGY_EV)


SMALL_FILES = "trap '' XFSZ; ulimit -f 8"  # blocks of 512 bytes


def test_a_disk_that_was_full_for_a_while(engine, disturbed, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(file_engine, "DISK_WAITS_S", (0.0, 0.0))
    command = disturbed(f'[ $n -le 2 ] && {{ {SMALL_FILES}; }}; $REAL "$@"')
    result = engine(command=command).single_point(two_atoms(), tmp_path / "run")
    assert disturbed.count() == 3
    # Nothing was changed: it is no failure of the structure.
    assert result.corrections == ()
    assert result.energy == pytest.approx(undisturbed.energy, abs=SAME_ENERGY_EV)


def test_a_full_disk_is_not_the_structures_failure(
    engine, disturbed, undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setattr(file_engine, "DISK_WAITS_S", (0.0, 0.0))
    always = disturbed(f'{SMALL_FILES}; $REAL "$@"')
    with pytest.raises(EngineMissingError, match="no room on its disk; make room") as caught:
        engine(command=always).single_point(two_atoms(), tmp_path / "run")
    assert caught.value.reason == "disk_full"
    assert disturbed.count() == 3
    assert not (tmp_path / "run" / "result.json").exists()
    assert not (tmp_path / "run" / "scratch").exists()
    result = engine().single_point(two_atoms(), tmp_path / "run")
    assert result.energy == pytest.approx(undisturbed.energy, abs=SAME_ENERGY_EV)


@pytest.fixture
def small_disk():
    """A disk of its own, and how to enlarge it."""
    # Not below tmp_path: pytest could not clear away what a killed test leaves mounted there.
    folder = tempfile.mkdtemp(prefix="hullscreen-disk-")
    words = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", folder]
    if (
        shutil.which("mount") is None
        or subprocess.run(words, capture_output=True, check=False).returncode
    ):
        Path(folder).rmdir()
        pytest.skip("this test mounts a small disk, which the user running it may not")
    yield (
        Path(folder),
        lambda: subprocess.run(
            ["mount", "-o", "remount,size=64m", folder], check=True, capture_output=True
        ),
    )
    # Lazily: a process that was just killed may still hold a file there.
    subprocess.run(["umount", "--lazy", folder], check=True, capture_output=True)
    Path(folder).rmdir()


@pytest.mark.parametrize("kind", ["single point", "relaxation"])
def test_a_disk_that_is_really_full(
    engine, small_disk, flipping, undisturbed, undisturbed_relaxation, monkeypatch, kind
):
    """pw.x says nothing of it; it ends well without a result, or with any kind of message."""
    monkeypatch.setattr(file_engine, "DISK_WAITS_S", (0.0, 0.0))
    folder, enlarge = small_disk

    def compute():
        if kind == "single point":
            return engine().single_point(two_atoms(), folder / "run")
        return engine(**FLIPPING).relax(flipping, folder / "run", **RELAX)

    with pytest.raises(EngineMissingError, match="no room") as caught:
        compute()
    assert caught.value.reason == "disk_full"
    enlarge()
    result = compute()
    assert result.corrections == ()
    expected = undisturbed if kind == "single point" else undisturbed_relaxation[0]
    assert result.energy == pytest.approx(expected.energy, abs=SAME_MINIMUM_EV)


@pytest.fixture
def own_pseudopotentials(tmp_path, debian_pseudopotentials):
    """Settings with a folder of the test's own, and its file for aluminium."""
    folder = tmp_path / "pseudo"
    folder.mkdir()

    def make(name):
        # One more line: another file, the same potential.
        whole = (debian_pseudopotentials / "Al.pz-vbc.UPF").read_text()
        (folder / name).write_text(whole + "\n")
        return {"pseudopotentials": str(folder), "files": {"Al": name}}, folder / name

    return make


def test_a_pseudopotential_that_is_gone_when_pw_x_looks(
    engine, disturbed, own_pseudopotentials, undisturbed, tmp_path
):
    table, path = own_pseudopotentials("Al.ours.UPF")
    command = disturbed(f'[ $n = 1 ] && mv {path} {path}.away; exec $REAL "$@"')
    ours = engine(**table, command=command)
    with pytest.raises(EngineMissingError, match="did not find or could not read") as caught:
        ours.single_point(two_atoms(), tmp_path / "run")
    assert caught.value.reason == "missing_pseudopotential"
    with pytest.raises(EngineMissingError, match=r"'Al\.ours\.UPF' for Al is not in"):
        ours.single_point(two_atoms(), tmp_path / "run")
    Path(f"{path}.away").rename(path)
    result = ours.single_point(two_atoms(), tmp_path / "run")
    assert result.corrections == ()
    assert result.energy == pytest.approx(undisturbed.energy, abs=SAME_ENERGY_EV)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # Debian's pw.x takes Debian's file of this name where ours is missing.
        ("mv {path} {path}.away", "is not in"),
        ('mv {path} {path}.away; $REAL "$@"; cp {path}.away {path}; exit 0', "read other"),
        # Somebody puts another file in its place.
        ("cp {path} {path}.away; echo >> {path}", "has changed while"),
    ],
)
def test_another_pseudopotential_of_the_same_name_gives_no_label(
    engine, disturbed, own_pseudopotentials, undisturbed, tmp_path, change, message
):
    table, path = own_pseudopotentials("Al.pz-vbc.UPF")
    script = f'if [ $n = 1 ]; then {change.format(path=path)}; fi; exec $REAL "$@"'
    ours = engine(**table, command=disturbed(script))
    before = fingerprint(ours, ["Al"])
    with pytest.raises(EngineMissingError, match=message) as caught:
        ours.single_point(two_atoms(), tmp_path / "run")
    assert caught.value.reason in ("wrong_pseudopotential", "missing_pseudopotential")
    assert not (tmp_path / "run" / "result.json").exists()
    shutil.copyfile(f"{path}.away", path)
    result = ours.single_point(two_atoms(), tmp_path / "run")
    assert result.energy == pytest.approx(undisturbed.energy, abs=SAME_ENERGY_EV)
    assert disturbed.count() == 2
    assert fingerprint(ours, ["Al"]) == before
