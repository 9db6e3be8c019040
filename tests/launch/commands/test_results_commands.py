"""hull, query, export, report, status: what they print, write and refuse."""

import json
import re

import matplotlib.image
import pytest

from hullscreen.database.addresses import URI_VARIABLE
from hullscreen.launch.result_tables import duration


@pytest.fixture
def call_json(call):
    """Function that runs a command with --json and returns its document."""

    def run(*words):
        code, out, err = call(*words, "--json")
        assert (code, err) == (0, "")
        assert out.count("\n") == 1
        return json.loads(out)

    return run


@pytest.fixture(scope="module")
def directory(small_campaign):
    return small_campaign.directory


@pytest.fixture
def unfinished(directory, copied_campaign, mongo, tmp_path):
    """Directory of the campaign before its last DFT relaxation, that of a compound."""
    text = (directory / "hullscreen.toml").read_text()
    copy = tmp_path / "unfinished"
    copy.mkdir()
    (copy / "hullscreen.toml").write_text(
        re.sub(r'(?m)^name = "test_.*"', f'name = "{mongo.name}"', text)
    )
    copied_campaign.set_campaign(finished=False)
    compound = mongo.database.structures.find_one(
        {"final": {"$exists": True}, "formula_pretty": {"$nin": ["Cu", "Pd"]}}
    )
    mongo.database.structures.update_one({"index": compound["index"]}, {"$unset": {"final": ""}})
    return copy


# hull


def test_hull_as_json(directory, call_json):
    hull = call_json("hull", directory)
    assert hull["chemsys"] == "Cu-Pd"
    assert hull["finished"] is True
    assert {"stable", "ties"} <= set(hull)
    assert "unstable" not in hull
    for phase in hull["stable"]:
        assert {
            "formula_pretty", "energy_per_atom", "formation_energy_per_atom", "nsites",
            "energy_above_hull", "is_stable", "decomposes_to",
        } <= set(phase)  # fmt: skip
        assert phase["energy_above_hull"] == 0
        assert phase["is_stable"] is True
    formation = {p["formula_pretty"]: p["formation_energy_per_atom"] for p in hull["stable"]}
    assert formation["Cu"] == formation["Pd"] == 0
    assert all(energy < 0 for formula, energy in formation.items() if formula not in {"Cu", "Pd"})
    everything = call_json("hull", directory, "--all")
    n = sum(len(everything[key]) for key in ("stable", "ties", "unstable"))
    assert n == everything["n_dft_relaxed"]


def test_hull_as_a_table(directory, call, call_json):
    code, out, err = call("hull", directory)
    assert (code, err) == (0, "")
    stable = call_json("hull", directory)["stable"]
    assert out.startswith(f"Cu–Pd: {len(stable)} stable phases")
    assert "provisional" not in out
    rows = [line.split() for line in out.splitlines()[4 : 4 + len(stable)]]
    for row, phase in zip(rows, stable, strict=True):
        assert row[0] == phase["formula_pretty"]
        assert row[1] == phase["prototype"]
        assert row[2] == phase["symmetry"]["symbol"]
        assert float(row[4]) == pytest.approx(phase["formation_energy_per_atom"], abs=5e-5)
        assert int(row[-1]) == phase["structure_index"]


def test_an_unfinished_hull_is_called_provisional(unfinished, call, call_json):
    code, out, _ = call("hull", unfinished, "--all")
    assert code == 0
    assert "provisional: the campaign goes on" in out
    assert "1 more structures wait" in out
    assert call_json("hull", unfinished)["finished"] is False


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_hull_draws_a_picture(directory, call, tmp_path, suffix):
    path = tmp_path / f"hull.{suffix}"
    code, out, err = call("hull", directory, "--picture", path)
    assert (code, err) == (0, "")
    assert f"The picture is in {path}." in out
    if suffix == "png":
        pixels = matplotlib.image.imread(path)
        assert pixels.shape[:2] == (960, 1440)
        # Something is drawn: neither white nor grey.
        assert (pixels[..., :3].max(axis=-1) - pixels[..., :3].min(axis=-1) > 0.3).mean() > 0.001
    else:
        assert path.read_text().startswith("<?xml")


def test_a_picture_does_not_spoil_the_json(directory, call_json, tmp_path):
    assert call_json("hull", directory, "--picture", tmp_path / "hull.png")["stable"]
    assert (tmp_path / "hull.png").exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("hull.gif", "should end in .png or .svg"), ("no/hull.png", "make it first")],
)
def test_a_picture_that_cannot_be(directory, call, tmp_path, name, sentence):
    code, out, err = call("hull", directory, "--picture", tmp_path / name)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1


# query


def test_query(directory, call, call_json, small_campaign):
    found = call_json("query", directory, "--limit", "0")
    assert found["total"] == len(found["structures"]) == small_campaign.store.count()
    some = call_json("query", directory, "--formula", "Pd2Cu", "--max-energy-above-hull", "0.05")
    assert 0 < some["total"] < found["total"]
    code, out, _ = call("query", directory, "--limit", 3)
    assert code == 0
    assert out.startswith(f"{found['total']} structures, 3 of them shown")
    assert "`--limit 0` shows all." in out
    stable = call_json("hull", directory)["stable"]
    _, out, _ = call("query", directory, "--stable")
    assert len(re.findall(r"\bstable\b", out)) == len(stable)


def test_query_says_why_something_was_dropped(directory, call, call_json):
    rows = call_json("query", directory, "--limit", "0")["structures"]
    dropped = next(row for row in rows if row["dropped"])
    one = call_json("query", directory, "--number", dropped["structure_index"])
    assert one["structures"] == [dropped]
    assert one["structures"][0]["dropped"]["reason"]
    _, out, _ = call("query", directory, "--number", dropped["structure_index"])
    assert "dropped" in out or "the same as" in out


def test_query_finds_nothing(directory, call):
    assert call("query", directory, "--number", 10**6) == (0, "No structure matches.\n", "")


def test_query_refuses_a_formula_of_others(directory, call):
    code, out, err = call("query", directory, "--formula", "NiPd")
    assert (code, out) == (2, "")
    assert "expected one of Cu, Pd" in err


# report and status


def test_report_as_json(directory, call_json):
    report = call_json("report", directory)
    assert {"funnel", "sigma", "dft_evaluations", "cpu_seconds", "outcomes"} <= set(report)
    assert report["dft_evaluations"]["total"] > 0
    assert report["wall_seconds"]["working"] > 0


def test_report_as_tables(directory, call, call_json):
    code, out, err = call("report", directory)
    assert (code, err) == (0, "")
    report = call_json("report", directory)
    assert out.startswith("cu-pd (Cu–Pd, EMT): finished after ")
    for reason in report["funnel"]["screen_1"]["dropped"]:
        assert reason in out
    sigma = report["sigma"]["screen_2"]
    assert f"{sigma['sigma_mev_per_atom']:.2f} ± {sigma['uncertainty_mev_per_atom']:.2f}" in out
    total = re.search(r"^total +([\d,]+) +([\d,]+) +([\d,]+)", out, flags=re.MULTILINE)
    assert int(total[3].replace(",", "")) == report["dft_evaluations"]["total"]
    assert "structures per CPU second" in out


def test_report_of_an_unfinished_campaign(unfinished, call):
    code, out, _ = call("report", unfinished)
    assert code == 0
    assert "not finished" in out
    assert re.search(r"to come +1\b", out)


def test_status(directory, unfinished, call, call_json):
    _, out, _ = call("status", directory)
    assert out.startswith("cu-pd (Cu–Pd): finished\n")
    assert f"hullscreen hull {directory}" in out
    assert call_json("status", directory)["finished"] is True
    _, out, _ = call("status", unfinished)
    assert "DFT relaxations of what may be stable" in out
    relaxations = call_json("status", unfinished)["progress"]["dft_relaxations"]
    assert relaxations["done"] == relaxations["total"] - 1
    assert "No worker is at it." in out
    assert f"To go on: hullscreen run {unfinished}\n" in out


def test_status_shows_failures(unfinished, mongo, call):
    step = mongo.database.fireworks.find_one({"spec._category": "dft", "launches": {"$ne": []}})
    trace = "Traceback (most recent call last):\n  File ...\nhullscreen.errors.DFTError: no scf\n"
    mongo.database.fireworks.update_one({"_id": step["_id"]}, {"$set": {"state": "FIZZLED"}})
    mongo.database.launches.update_one(
        {"launch_id": step["launches"][-1]},
        {"$set": {"action.stored_data._exception": {"_stacktrace": trace, "_details": None}}},
    )
    _, out, _ = call("status", unfinished)
    assert re.search(rf"^ +1  dft +{step['fw_id']}  no scf *$", out, flags=re.MULTILINE)
    assert f"hullscreen rerun {unfinished} --failed" in out
    assert f"hullscreen logs {unfinished} --firework {step['fw_id']}" in out


# What cannot be


@pytest.mark.parametrize(
    "words",
    [["hull"], ["query"], ["report"], ["status"], ["export", "--format", "json"]],
)
def test_a_campaign_that_was_not_started(tmp_path, monkeypatch, call, words):
    monkeypatch.delenv(URI_VARIABLE, raising=False)
    (tmp_path / "hullscreen.toml").write_text('[campaign]\nname = "a"\nelements = ["Cu", "Pd"]\n')
    code, out, err = call(words[0], tmp_path, *words[1:])
    assert (code, out) == (6, "")
    assert err == (
        f"hullscreen: campaign 'a' has not been started; `hullscreen run {tmp_path}` or `launch` "
        "starts it\n"
    )
    # No server was started for that.
    assert not (tmp_path / "database").exists()


def test_a_campaign_that_the_given_server_does_not_know(tmp_path, mongo, call):
    (tmp_path / "hullscreen.toml").write_text(
        f'[campaign]\nname = "a"\nelements = ["Cu", "Pd"]\n[database]\nname = "{mongo.name}"\n'
    )
    code, _, err = call("status", tmp_path, "--db", mongo.uri)
    assert code == 6
    assert "has not been started" in err


def test_a_hull_without_an_element(unfinished, mongo, call):
    mongo.database.structures.update_many({"formula_pretty": "Cu"}, {"$unset": {"final": ""}})
    for words in (["hull"], ["hull", "--json"], ["query", "--stable"]):
        code, out, err = call(words[0], unfinished, *words[1:])
        assert (code, out) == (6, "")
        assert "no structure of pure Cu is relaxed with DFT" in err
        assert err.count("\n") == 1
    assert call("query", unfinished)[0] == 0
    assert call("report", unfinished)[0] == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.2 s"), (250, "4 min 10 s"), (7500, "2 h 05 min"), (273600, "3 d 4 h")],
)
def test_durations_are_what_a_person_says(seconds, text):
    assert duration(seconds) == text
