"""The loop of corrections, on a code that is a shell script and fails as it is told."""

import errno
import json
import random
from copy import copy
from dataclasses import dataclass

import numpy as np
import pytest
from ase import Atoms

from hullscreen.dft_adapters import file_engine
from hullscreen.dft_adapters.corrections import (
    JOURNAL_FILE,
    MAX_CORRECTIONS,
    Correction,
    Journal,
    Reached,
)
from hullscreen.dft_adapters.engine import CalculationError, DFTResult, EngineMissingError
from hullscreen.dft_adapters.failures import Failure
from hullscreen.dft_adapters.file_engine import Task, run_calculation
from hullscreen.dft_adapters.own_folder import own_folder

# A relaxation of one atom in a cubic cell: each step takes 1 Å off until 3 Å are left. The first
# line of `fates`, such as "5 bands are broken", says at which length this run ends, and how.
SCRIPT = """
mkdir -p scratch; echo run >> runs
fate=$(head -n 1 fates); sed -i 1d fates
. ./input
if [ "${fate%% *}" = start ]; then echo "${fate#* }"; exit 1; fi
if [ "$restart" = yes ]; then length=$(tail -n 1 scratch/steps); fi
: > scratch/steps
while true; do
  echo $length >> scratch/steps; echo $length >> evaluations
  if [ "${fate%% *}" = $length ]; then
    echo "${fate#* }"
    [ "${fate#* }" = "killed" ] && kill -9 $$
    [ "${fate#* }" = "hanging" ] && sleep 60
    exit 1
  fi
  [ $length -le 3 ] && break
  [ $(wc -l < scratch/steps) -ge $max_steps ] && break
  length=$((length-1))
done
echo $length > energy
"""
FAILURES = (
    Failure("bands are broken", "bands", "broke its bands", "the script above"),
    Failure("mixing is bad", "mixing", "mixed badly", "the script above"),
    Failure("time is up", "time", "had no time left", "the script above"),
    Failure("hopeless", "hopeless", "has no hope", "the script above"),
    Failure("disk is full", "disk_full", "found no room", "the script above", of_the_machine=True),
    Failure("no licence", "licence", "has no licence", "the script above", of_the_machine=True),
)
CORRECTIONS = {
    "bands": (
        Correction("more bands", {"set": {"bands": 10, "both": "bands"}}),
        Correction("many more bands", {"set": {"bands": 20}}, "geometry"),
    ),
    "mixing": (Correction("slower", {"set": {"beta": 0.1, "both": "mixing"}}, "geometry"),) * 4,
    "time": (Correction("gone on", {}, "scratch"),) * 9,
    "killed": (Correction("again", {}, "geometry"),) * 2,
    "timeout": (Correction("again", {}, "geometry"),),
}
RELAX = Task("relax", force_tolerance=0.01, stress_tolerance=0.01, max_steps=50)
SINGLE_POINT = Task("single_point")


@dataclass
class ShellEngine:
    """What `run_calculation` asks of a code's adapter."""

    name = "shell"
    table = "dft.toy"
    first_words = ""
    failures = FAILURES
    corrections = CORRECTIONS
    environment = {}  # noqa: RUF012 - never changed
    failure_files = ()
    result_files = ("energy",)
    scratch_folders = ("scratch",)
    good_codes = (0,)
    timeout_s: float | None = None

    def content(self, _elements):
        return {"engine": "shell"}

    def write_inputs(self, atoms, directory, task, attempt):
        cell = atoms.cell[:] if attempt.reached is None else attempt.reached.cell
        values = {
            "length": round(cell[0, 0]),
            "max_steps": task.max_steps if task.kind == "relax" else 1,
            "restart": "yes" if attempt.restart else "no",
        }
        for correction in attempt.corrections:
            values |= correction.changes.get("set", {})
        text = "".join(f"{key}={value}\n" for key, value in values.items())
        (directory / "input").write_text(text)
        return ["input"]

    def command(self, _directory):
        return ["sh", "-c", SCRIPT]

    def reached(self, directory, _atoms):
        path = directory / "scratch" / "steps"
        steps = path.read_text().split() if path.is_file() else []
        return Reached(np.eye(3) * int(steps[-1]), np.zeros((1, 3)), len(steps)) if steps else None

    def read_results(self, directory, _atoms, task):
        length = float((directory / "energy").read_text())
        n_steps = len((directory / "scratch" / "steps").read_text().split())
        zeros = np.zeros((1, 3))
        return DFTResult(
            energy=length, forces=zeros, stress=np.zeros((3, 3)), cell=np.eye(3) * length,
            positions=zeros, converged=length <= 3 or task.kind == "single_point",
            n_evaluations=n_steps, cpu_seconds=0.0, engine=self.name,
        )  # fmt: skip


@pytest.fixture
def compute(tmp_path, monkeypatch):
    """Run a calculation, each of whose runs meets the fate named here."""
    monkeypatch.setattr(file_engine, "DISK_WAITS_S", (0.0, 0.0, 0.0))

    def run(*fates, task=RELAX, length=8, folder=tmp_path / "run", engine=None):
        folder.mkdir(exist_ok=True)
        (folder / "fates").write_text("".join(f"{fate}\n" for fate in fates))
        atoms = Atoms("Al", cell=[length] * 3, pbc=True)
        return run_calculation(engine or ShellEngine(), atoms, folder, task)

    return run


def lines(path):
    return path.read_text().split() if path.is_file() else []


def test_nothing_to_correct(compute, tmp_path):
    result = compute()
    assert (result.energy, result.n_evaluations, result.corrections) == (3.0, 6, ())
    assert not {"scratch", JOURNAL_FILE} & {path.name for path in (tmp_path / "run").iterdir()}


def test_corrections_follow_one_another_and_later_ones_win(compute, tmp_path):
    result = compute("5 bands are broken", "7 mixing is bad", "6 bands are broken")
    assert result.corrections == ("bands: more bands", "mixing: slower", "bands: many more bands")
    assert (result.energy, result.converged) == (3.0, True)
    run = tmp_path / "run"
    # The last input has all three; "more bands" began afresh, the others where they had come.
    assert dict(line.split("=") for line in lines(run / "input")) == {
        "length": "6", "max_steps": "42", "restart": "no", "bands": "20", "beta": "0.1",
        "both": "mixing",
    }  # fmt: skip
    assert lines(run / "evaluations") == list("876587766543")
    assert result.n_evaluations == 12
    assert "bands are broken" in (run / "output-1.txt").read_text()
    assert "mixing is bad" in (run / "output-2.txt").read_text()


def test_processor_time_of_all_attempts_is_added_up(compute, monkeypatch):
    spent = []

    def counted(*arguments, **options):
        completed = original(*arguments, **options)
        spent.append(completed.cpu_seconds)
        return completed

    original = file_engine.run_command
    monkeypatch.setattr(file_engine, "run_command", counted)
    result = compute("8 disk is full", "5 bands are broken", "7 mixing is bad")
    assert len(spent) == 4
    # The same numbers in the same order.
    assert result.cpu_seconds == sum(spent) > 0


def test_processor_time_of_what_failed_is_told(compute):
    with pytest.raises(CalculationError, match="has no hope") as caught:
        compute("5 bands are broken", "7 hopeless")
    assert caught.value.cpu_seconds > 0
    # As it goes from one process to another.
    assert copy(caught.value).cpu_seconds == caught.value.cpu_seconds


def test_processor_time_is_kept_where_the_machine_lacked_something(compute):
    with pytest.raises(EngineMissingError, match="has no licence"):
        compute("8 no licence", task=SINGLE_POINT)
    with pytest.raises(CalculationError, match="has no hope") as first:
        compute("8 hopeless", task=SINGLE_POINT)
    with pytest.raises(CalculationError, match="has no hope") as second:
        compute("8 hopeless", task=SINGLE_POINT)
    # Two attempts, then one: a failed one's journal is gone.
    assert first.value.cpu_seconds > second.value.cpu_seconds > 0


def test_a_folder_that_cannot_be_used_is_the_machines_failure(compute, tmp_path):
    (tmp_path / "a file").touch()
    with pytest.raises(EngineMissingError, match="its files cannot be used") as caught:
        run_calculation(
            ShellEngine(), Atoms("Al", cell=[8] * 3, pbc=True), tmp_path / "a file" / "run", RELAX
        )
    assert caught.value.reason == "files"


def test_two_workers_at_one_calculation_do_not_write_over_each_other(compute, tmp_path):
    folder = tmp_path / "run"
    with own_folder(folder):
        # The other one may have been stopped for hours.
        assert compute(folder=folder).energy == 3.0
        assert lines(tmp_path / "run-2" / "runs") == ["run"]
        assert not (folder / "runs").exists()
    compute(folder=folder)
    assert lines(folder / "runs") == ["run"]


def test_going_on_from_the_restart_files(compute, tmp_path):
    result = compute("6 time is up", "4 time is up")
    assert result.corrections == ("time: gone on",) * 2
    assert lines(tmp_path / "run" / "evaluations") == list("87665443")
    assert (result.energy, result.n_evaluations) == (3.0, 8)


def test_restart_files_that_cannot_be_used_count_once(compute, tmp_path):
    result = compute("6 time is up", "start mixing is bad")
    assert result.corrections == ("time: gone on", "mixing: slower")
    assert lines(tmp_path / "run" / "evaluations") == list("8766543")
    assert (result.energy, result.n_evaluations) == (3.0, 7)


def test_single_points_count_each_attempt(compute):
    result = compute("8 mixing is bad", "8 time is up", task=SINGLE_POINT)
    assert (result.energy, result.n_evaluations) == (8.0, 3)


def test_the_steps_of_all_attempts_share_one_limit(compute):
    limited = Task("relax", max_steps=5)
    result = compute("6 mixing is bad", task=limited)
    # 8, 7, 6, and again 6, 5.
    assert (result.n_evaluations, result.energy, result.converged) == (5, 5.0, False)


@pytest.mark.parametrize(
    ("fates", "reason", "tried"),
    [
        (["8 hopeless"], "hopeless", []),
        (["8 bands are broken"] * 9, "bands", ["bands: more bands", "bands: many more bands"]),
        (["8 time is up"] * 9, "time", ["time: gone on"] * MAX_CORRECTIONS),
        (
            ["8 mixing is bad", "8 bands are broken"] * 9,
            "bands",
            [
                "mixing: slower",
                "bands: more bands",
                "mixing: slower",
                "bands: many more bands",
                "mixing: slower",
            ],
        ),
        (["8 killed"] * 9, "killed", ["killed: again"] * 2),
        (["7 mixing is bad", "6 hopeless"], "hopeless", ["mixing: slower"]),
    ],
)
def test_given_up_with_all_that_was_tried(compute, tmp_path, fates, reason, tried):
    with pytest.raises(CalculationError) as caught:
        compute(*fates)
    assert caught.value.reason == reason
    assert list(caught.value.corrections) == tried
    assert str(caught.value).count("\n") == 0
    assert ("after corrections: " + "; ".join(tried) in str(caught.value)) == bool(tried)
    run = tmp_path / "run"
    assert len(lines(run / "runs")) == len(tried) + 1 <= MAX_CORRECTIONS + 1
    # Who runs it again has all attempts anew, without the corrections.
    assert not {"scratch", JOURNAL_FILE, "result.json"} & {path.name for path in run.iterdir()}
    again = compute()
    assert (again.energy, again.n_evaluations, again.corrections) == (3.0, 6, ())


class PowerCutError(BaseException):
    """Nothing catches it."""


@pytest.fixture
def power_cut(monkeypatch):
    """Let the process end right after a number of runs of the script."""

    def after(n_runs):
        left = iter(range(n_runs))

        def run_command(*arguments, **options):
            completed = original(*arguments, **options)
            if next(left, None) is None:
                raise PowerCutError
            return completed

        monkeypatch.setattr(file_engine, "run_command", run_command)

    original = file_engine.run_command
    yield after
    monkeypatch.setattr(file_engine, "run_command", original)


def test_a_killed_calculation_goes_on_with_its_corrections(compute, power_cut, tmp_path):
    power_cut(1)
    with pytest.raises(PowerCutError):
        compute("6 mixing is bad", "5 killed")
    power_cut(9)
    result = compute("5 bands are broken")
    assert result.corrections == ("mixing: slower", "bands: more bands")
    assert lines(tmp_path / "run" / "evaluations") == list("876655543")
    assert result.n_evaluations == 9
    assert "beta=0.1" in lines(tmp_path / "run" / "input")


@pytest.mark.parametrize("n_cuts", [1, 2, 5])
def test_power_cuts_cost_what_was_just_computed(compute, power_cut, tmp_path, n_cuts):
    for length in range(7, 7 - n_cuts, -1):
        power_cut(0)
        with pytest.raises(PowerCutError):
            compute(f"{length} killed")
    power_cut(1)
    result = compute()
    assert result.energy == 3.0
    assert result.corrections == ()
    # Only the step at which it was cut is computed again.
    assert result.n_evaluations == len(lines(tmp_path / "run" / "evaluations")) == 6 + n_cuts


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "null", '{"inputs_hash": "x", "reached": 3}', "\x00\x00"]
)
def test_a_journal_that_cannot_be_read_counts_as_none(compute, power_cut, tmp_path, text):
    power_cut(1)
    with pytest.raises(PowerCutError):
        compute("6 mixing is bad", "5 killed")
    power_cut(9)
    (tmp_path / "run" / JOURNAL_FILE).write_text(text)
    result = compute()
    assert (result.energy, result.n_evaluations, result.corrections) == (3.0, 6, ())


def test_a_journal_of_another_calculation_is_not_believed(compute, power_cut):
    power_cut(1)
    with pytest.raises(PowerCutError):
        compute("6 mixing is bad", "5 killed")
    power_cut(9)
    result = compute(length=9)
    assert (result.energy, result.n_evaluations, result.corrections) == (3.0, 7, ())


def test_a_journal_that_knows_more_corrections_than_the_table(tmp_path):
    path = tmp_path / JOURNAL_FILE
    Journal(path, "x", applied=[("bands", 0), ("bands", 7), ("older", 0)]).write()
    journal = Journal.read(path, "x")
    assert journal.begun
    assert journal.sentences(CORRECTIONS) == ("bands: more bands",)
    assert journal.in_force(CORRECTIONS) == [CORRECTIONS["bands"][0]]
    assert not Journal.read(path, "y").begun


def test_a_disk_that_is_full_for_a_while(compute, tmp_path):
    result = compute("6 disk is full", "5 disk is full", "4 disk is full")
    # It says nothing about the structure: no correction, and the steps are not lost.
    assert (result.energy, result.corrections) == (3.0, ())
    assert lines(tmp_path / "run" / "evaluations") == list("876655443")
    assert result.n_evaluations == 9


def test_what_the_machine_lacks_is_no_result_and_no_failure(compute, tmp_path):
    with pytest.raises(EngineMissingError, match="found no room") as caught:
        compute("6 mixing is bad", *["5 disk is full"] * 9)
    assert caught.value.reason == "disk_full"
    run = tmp_path / "run"
    assert len(lines(run / "runs")) == 1 + 1 + 3
    assert not {"scratch", "result.json"} & {path.name for path in run.iterdir()}
    with pytest.raises(EngineMissingError, match="has no licence"):
        compute("4 no licence")
    # The corrections that it had stay, and the steps as well.
    result = compute()
    assert result.corrections == ("mixing: slower",)
    assert result.n_evaluations == len(lines(run / "evaluations"))
    assert lines(run / "evaluations")[-2:] == ["4", "3"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_for_our_own_files(compute, monkeypatch, number):
    def full(*_arguments):
        raise OSError(number, "no room")

    with monkeypatch.context() as patch:
        patch.setattr(file_engine, "write_result_file", full)
        with pytest.raises(EngineMissingError, match=r"has no room left.*make room"):
            compute()
    assert compute().energy == 3.0


def test_other_faults_of_the_system_are_not_called_a_full_disk(compute, monkeypatch):
    def broken(*_arguments):
        raise OSError(errno.EIO, "bad sectors")

    with monkeypatch.context() as patch:
        patch.setattr(file_engine, "write_result_file", broken)
        with pytest.raises(EngineMissingError, match=r"cannot be used .*bad sectors") as caught:
            compute()
    assert caught.value.reason == "files"
    assert compute().energy == 3.0


def test_failures_on_a_disk_without_room_are_the_disks(compute, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(file_engine, "ROOM_NEEDED_BYTES", 2**80)
        with pytest.raises(EngineMissingError, match="has no room left") as caught:
            compute(*["8 hopeless"] * 9)
    assert caught.value.reason == "disk_full"
    assert len(lines(tmp_path / "run" / "runs")) == 4
    with pytest.raises(CalculationError):
        compute("8 hopeless")


def test_a_run_that_hangs_is_killed_and_goes_on_from_where_it_was(compute, tmp_path):
    engine = ShellEngine(timeout_s=1.0)
    result = compute("6 hanging", engine=engine)
    assert result.corrections == ("timeout: again",)
    assert lines(tmp_path / "run" / "evaluations") == list("8766543")
    with pytest.raises(CalculationError, match=r"was killed after 1 s") as caught:
        compute("6 hanging", "5 hanging", engine=engine, length=9)
    assert (caught.value.reason, caught.value.corrections) == ("timeout", ("timeout: again",))


def test_a_result_lost_is_computed_anew(compute, tmp_path):
    compute("6 mixing is bad")
    (tmp_path / "run" / "result.json").unlink()
    again = compute()
    assert (again.n_evaluations, again.corrections) == (6, ())


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_nothing_is_lost_or_counted_twice(compute, power_cut, tmp_path, seed):
    chance = random.Random(seed)
    words = ["mixing is bad", "bands are broken", "time is up", "disk is full", "cut"]
    evaluations, run = tmp_path / "run" / "evaluations", tmp_path / "run"
    result = None
    while result is None:
        fates = [f"{chance.randint(3, 8)} {chance.choice(words)}" for _ in range(3)]
        cut = next((i for i, fate in enumerate(fates) if fate.endswith("cut")), 9)
        power_cut(cut)
        try:
            result = compute(*fates)
        except (PowerCutError, EngineMissingError):
            continue
        except CalculationError as error:
            n_corrections, journal = len(error.corrections), (run / JOURNAL_FILE).exists()
            evaluations.unlink()
        else:
            n_corrections, journal = len(result.corrections), (run / JOURNAL_FILE).exists()
        assert n_corrections <= MAX_CORRECTIONS
        assert not journal
    assert (result.energy, result.converged) == (3.0, True)
    assert result.n_evaluations == len(lines(evaluations))
    stored = json.loads((run / "result.json").read_text())["result"]
    assert tuple(stored["corrections"]) == result.corrections
