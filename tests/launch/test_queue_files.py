"""FireWorks' files for queues, and the job scripts that come out of them."""

import os
import stat
import subprocess
import sys

import pytest
from fireworks import FWorker

from hullscreen.launch.launchpad_file import FILE_NAME as LAUNCHPAD_FILE
from hullscreen.launch.queue_files import (
    QADAPTER_FILE,
    TEMPLATE_FILE,
    adapter_of,
    job_name,
    job_script,
    left_to_others,
    roles_of,
    write_queue_files,
)
from hullscreen.launch.settings import from_tables
from hullscreen.launch.worker_processes import FWORKER_FILE
from hullscreen.potentials.errors import InputError

URI = "mongodb://ann:s3cret@host:27017/?authSource=admin"
CAMPAIGN = {"name": "cu-pd", "elements": ["Cu", "Pd"]}


def settings(**launch):
    return from_tables({"campaign": CAMPAIGN, "launch": launch})


def write(root, queue="slurm", **launch):
    return write_queue_files(root, settings(**launch), URI, queue, "run-1")


def script(folder):
    return adapter_of(folder).get_script_str(str(folder))


def options(text, mark):
    """Options of the queue in a job script."""
    return [line.removeprefix(mark).strip() for line in text.splitlines() if line.startswith(mark)]


def test_each_kind_of_steps_has_a_folder_that_fireworks_understands(tmp_path):
    folders = write(tmp_path)
    assert {name: path.name for name, path in folders.items()} == {
        "relax": "relax", "train": "train", "dft": "dft"
    }  # fmt: skip
    for category, folder in folders.items():
        names = {path.name for path in folder.iterdir()}
        assert names == {
            LAUNCHPAD_FILE,
            FWORKER_FILE,
            QADAPTER_FILE,
            TEMPLATE_FILE,
            "FW_config.yaml",
        }
        worker = FWorker.from_file(str(folder / FWORKER_FILE))
        assert worker.query["spec.campaign"] == "cu-pd"
        assert worker.query["spec._category"] == category
        assert adapter_of(folder).q_type == "SLURM"


def test_only_the_owner_reads_the_address_and_no_other_file_has_it(tmp_path):
    for folder in write(tmp_path).values():
        for path in folder.iterdir():
            private = path.name == LAUNCHPAD_FILE
            assert ("s3cret" in path.read_text()) == private
            assert (stat.S_IMODE(path.stat().st_mode) == 0o600) == private


def test_a_slurm_job_says_all_that_the_settings_say(tmp_path):
    folder = write(
        tmp_path,
        partition="batch",
        account="alloys",
        relax={
            "cores": 8, "walltime": "36:00:00", "memory": "16G",
            "extra": ["--qos=long", "#SBATCH --exclusive"],
        },
    )["relax"]  # fmt: skip
    text = script(folder)
    assert options(text, "#SBATCH") == [
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=8",
        "--time=36:00:00",
        "--partition=batch",
        "--account=alloys",
        "--job-name=cu-pd-relax",
        "--output=cu-pd-relax-%j.out",
        "--error=cu-pd-relax-%j.error",
        "--mem=16G",
        "--qos=long",
        "--exclusive",
    ]
    assert text.rstrip().splitlines()[-3].startswith(f"exec {sys.executable} -m hullscreen.launch ")
    # One process per core.
    assert f"worker {folder} --processes 8 --stop-after 129600 --idle 300" in text


def test_a_dft_job_is_one_worker_whose_engine_has_the_cores(tmp_path):
    text = script(write(tmp_path, dft={"cores": 32})["dft"])
    assert "--processes 1 " in text
    assert {"--ntasks=32", "--cpus-per-task=1"} <= set(options(text, "#SBATCH"))


def test_a_pbs_job(tmp_path):
    size = {"cores": 4, "walltime": "02:30:00", "memory": "4G", "extra": ["-W group_list=alloys"]}
    text = script(write(tmp_path, "pbs", partition="batch", account="alloys", train=size)["train"])
    assert options(text, "#PBS") == [
        "-l nodes=1:ppn=4",
        "-l walltime=02:30:00",
        "-q batch",
        "-A alloys",
        "-N cu-pd-train",
        "-l mem=4gb",
        "-W group_list=alloys",
    ]
    assert "--processes 4 --stop-after 9000 " in text


def test_an_sge_job(tmp_path):
    # SGE counts memory by core: 10 GiB on three cores are 3495254 KiB each, rounded up.
    size = {"cores": 3, "walltime": "02:00:00", "memory": "10G"}
    text = script(write(tmp_path, "sge", partition="all.q", account="alloys", relax=size)["relax"])
    assert options(text, "#$") == [
        "-q all.q",
        "-A alloys",
        "-N cu-pd-relax",
        "-S /bin/bash",
        "-cwd",
        "-l h_rt=02:00:00",
        "-l h_vmem=3495254K",
        "-pe smp 3",
    ]


def test_the_parallel_environment_of_sge_may_have_another_name(tmp_path):
    for size in ({"cores": 3, "extra": ["-pe orte 3"]}, {"cores": 3}):
        folders = write(tmp_path, "sge", relax=size, parallel_environment="orte")
        found = options(script(folders["relax"]), "#$")
        assert [option for option in found if option.startswith("-pe")] == ["-pe orte 3"]


def test_names_are_cut_where_queues_refuse_long_ones(tmp_path):
    tables = {"campaign": {**CAMPAIGN, "name": "copper-and-palladium"}}
    for queue, mark in (("pbs", "#PBS"), ("sge", "#$"), ("slurm", "#SBATCH")):
        folders = write_queue_files(tmp_path / queue, from_tables(tables), URI, queue, "run-1")
        found = options(script(folders["relax"]), mark)
        if queue == "slurm":
            assert "--job-name=copper-and-palladium-relax" in found
        else:
            assert "-N copper-an-relax" in found


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A program in python's place that tells where it was started, how, and with what variables."""
    path = tmp_path / "python"
    path.write_text('#!/bin/sh\npwd\necho "$@"\nenv\n')
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    return path


@pytest.mark.parametrize("queue", ["slurm", "pbs", "sge"])
def test_the_script_prepares_what_the_settings_say(tmp_path, stand_in, queue):
    root = tmp_path / "a folder's name"
    own = {"OMP_NUM_THREADS": "2", "WORDS": "it's $HOME"}
    folder = write(
        root,
        queue,
        setup=["false || true", "export FROM_SETUP=1 MKL_NUM_THREADS=5"],
        environment=own,
    )["relax"]
    path = tmp_path / "job.sh"
    path.write_text(script(folder))
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", path], env=clean, capture_output=True, text=True, check=True, timeout=60
    )
    # A login shell may greet.
    place, command, *rest = done.stdout[done.stdout.index(str(root)) :].splitlines()
    assert place == str(folder)
    assert command.startswith(f"-m hullscreen.launch worker {folder} --processes 1 ")
    variables = dict(line.split("=", 1) for line in rest if "=" in line)
    # The user's variables come last, and what modules set counts.
    assert variables["OMP_NUM_THREADS"] == "2"
    assert variables["MKL_NUM_THREADS"] == "5"
    assert variables["NUMBA_NUM_THREADS"] == "1"
    assert variables["FROM_SETUP"] == "1"
    assert variables["WORDS"] == "it's $HOME"
    assert variables["HULLSCREEN_RUN"] == "run-1"
    cache = variables["NUMBA_CACHE_DIR"]
    start = f"{tmp_path}/.cache/hullscreen/numba/{os.uname().machine}"
    assert cache.startswith(start)
    assert set(cache[len(str(tmp_path)) :]) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/.-_"
    )


@pytest.mark.parametrize(
    ("lines", "status", "said"),
    [
        (
            ["module() { false; true; }", "module load a", "grep -q x /nowhere"],
            2,
            "failed: status 2",
        ),
        (["exit 3"], 3, ""),
        (["module() { return 1; }", "module load a", "echo on"], 1, "failed: status 1"),
        (["no-such-program-here"], 127, "failed: status 127"),
    ],
)
def test_a_line_of_setup_that_fails_ends_the_job(tmp_path, stand_in, lines, status, said):
    path = tmp_path / "job.sh"
    path.write_text(script(write(tmp_path / "queue", setup=lines)["relax"]))
    done = subprocess.run(["bash", path], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status
    assert said in done.stderr
    assert "worker" not in done.stdout


@pytest.mark.parametrize("queue", ["slurm", "pbs", "sge"])
def test_scripts_have_no_double_empty_lines(tmp_path, queue):
    for extra in ([], ["-W x"]):
        for folder in write(tmp_path, queue, relax={"extra": extra}).values():
            assert "\n\n\n" not in script(folder)


def test_names_of_jobs_begin_with_a_letter_where_they_must():
    assert job_name("3d", "dft", "sge") == "c3d-dft"
    assert job_name("3d", "dft", "slurm") == "3d-dft"


@pytest.mark.parametrize(
    "name",
    ["a blank", "Legierung-ä", 'q"uote', "$HOME", "$(touch made)", "`touch made`", "a\\", "-n"],
)
def test_a_job_runs_in_its_folder_whatever_that_is_called(tmp_path, stand_in, name):
    folder = write(tmp_path / name)["relax"]
    own = folder / "launcher_1"
    own.mkdir()
    path = tmp_path / "job.sh"
    path.write_text(job_script(folder, own))
    done = subprocess.run(
        ["bash", path], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert str(own) in done.stdout.splitlines()
    assert f"worker {folder} --processes 1" in done.stdout
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["two\nlines", "a$$b"])
def test_a_folder_that_no_script_can_name_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"cannot stand in a job script.*: move it"):
        write(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_of_the_users_own_is_used(tmp_path, stand_in):
    folder = write(tmp_path / "queue", environment={"NUMBA_CACHE_DIR": "/scratch/numba"})["relax"]
    path = tmp_path / "job.sh"
    path.write_text(script(folder))
    done = subprocess.run(["bash", path], capture_output=True, text=True, check=True, timeout=60)
    assert "NUMBA_CACHE_DIR=/scratch/numba" in done.stdout.splitlines()


def test_a_kind_without_jobs_has_no_folder_and_fits_are_left_to_nobody(tmp_path):
    folders = write(tmp_path, train={"jobs": 0}, dft={"jobs": 0})
    assert set(folders) == {"relax"}
    worker = FWorker.from_file(str(folders["relax"] / FWORKER_FILE))
    assert worker.query["spec._category"] == {"$in": ["relax", "train"]}
    assert (
        roles_of(settings(**{name: {"jobs": 0} for name in ("relax", "train", "dft")}).launch) == []
    )


@pytest.mark.parametrize(
    ("without", "waiting"),
    [
        ([], []),
        (["dft"], ["dft"]),
        # Those that relax fit as well.
        (["train"], []),
        (["relax"], ["relax"]),
        (["relax", "train"], ["relax", "train"]),
    ],
)
def test_what_no_job_takes_is_named(without, waiting):
    assert left_to_others(settings(**{name: {"jobs": 0} for name in without}).launch) == waiting


def test_ours_are_renewed_and_the_users_own_are_kept(tmp_path):
    folder = write(tmp_path)["relax"]
    write(tmp_path, partition="other")
    assert "--partition=other" in script(folder)
    path = folder / QADAPTER_FILE
    first, _, rest = path.read_text().partition("\n")
    assert first.startswith("# Written by hullscreen")
    path.write_text(rest)
    write(tmp_path, partition="third")
    assert "--partition=other" in script(folder)
