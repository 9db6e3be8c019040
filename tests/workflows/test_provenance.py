"""Where results come from, and nothing of the machine they were made on."""

import json
from importlib.metadata import version

import pytest

from hullscreen.database.documents import SCHEMA_VERSION
from hullscreen.database.schema import program_version
from hullscreen.workflows.provenance import provenance, without_folders


def test_everything_to_compute_it_again(make_campaign):
    campaign = make_campaign()
    known = provenance(campaign.store)
    assert known["campaign"] == "tiny"
    assert known["chemsys"] == "Cu-Pd"
    assert known["elements"] == ["Cu", "Pd"]
    assert known["finished"] is False
    assert known["seed"] == 3
    stored = campaign.store.campaign()
    engine = known["dft_engine"]
    assert (engine["name"], engine["fingerprint"]) == ("EMT", stored["engine"]["fingerprint"])
    assert engine["content"]["calculator"] == "ase.calculators.emt:EMT"
    assert known["versions"]["hullscreen"] == program_version()
    assert known["versions"]["ase"] == version("ase")
    assert known["schema_version"] == SCHEMA_VERSION
    assert known["settings"]["screening"]["sigma_multiple"] == 2.0
    assert known["settings"].keys() == {
        "campaign", "prototypes", "dft", "potential", "learning", "screening", "relaxation"
    }  # fmt: skip
    assert json.loads(json.dumps(known)) == known


def test_no_address_password_or_folder_is_in_it(make_campaign, tmp_path):
    store = make_campaign().store
    settings = store.campaign()["settings"]
    settings["database"] = {"uri": "mongodb://ann:s3cret@db.example.org/"}
    settings["launch"] = {"environment": {"TOKEN": "s3cret"}}
    settings["dft"]["quantum_espresso"]["command"] = f"mpirun -np 4 {tmp_path}/bin/pw.x -nk 2"
    settings["dft"]["vasp"]["potcar_directory"] = "/home/ann/potcars/"
    settings["dft"]["quantum_espresso"]["files"] = {"Cu": "~/upf/Cu.upf"}
    store.set_campaign(settings=settings)
    known = provenance(store)
    text = json.dumps(known)
    for private in ("s3cret", "example.org", "ann", str(tmp_path), "home"):
        assert private not in text
    dft = known["settings"]["dft"]
    assert dft["quantum_espresso"]["command"] == "mpirun -np 4 pw.x -nk 2"
    assert dft["quantum_espresso"]["files"] == {"Cu": "Cu.upf"}
    assert dft["vasp"]["potcar_directory"] == ""


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("pw.x", "pw.x"),
        ("vasp_std -i pot/Cu.upf", "vasp_std -i pot/Cu.upf"),
        ("/opt/a/b", "b"),
        ("/opt/a/b/", ""),
        ("~ann/b/c.x", "c.x"),
        ("--input=/opt/a/b.in", "--input=b.in"),
        ("'/opt/a b/pw.x'", "'pw.x'"),
        ("mongodb://ann:secret@host/db", "db"),
        ("https://ann:secret@host", ""),
        ("C/N ratio 1/3", "C/N ratio 1/3"),
        ("ase.calculators.emt:EMT", "ase.calculators.emt:EMT"),
    ],
)
def test_texts_without_folders(text, left):
    assert without_folders(text) == left
    assert without_folders([{"key": text}, 1.5, True, None]) == [{"key": left}, 1.5, True, None]
