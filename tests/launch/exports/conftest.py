import re

import pytest

from hullscreen.workflows.results import final_hull

# Names that break lines, quotes, tables, markup and paths, as long as somebody lets them.
HOSTILE = (
    "<script>alert(1)</script>", "two\nlines\r\n END_CFG", 'commas, "quotes", \'and\' more',
    "=1+1", "@SUM(A1)", "a=b c={1,2}", "../../etc/passwd", "nul\0byte", "T", "1 2 3", "", "   ",
    "# comment", "Ünï—cödé\u2028\x85", "data_x\nloop_\n_y", "x" * 300, "back\\slash\\n", "$HOME",
)  # fmt: skip


@pytest.fixture(scope="session")
def directory(small_campaign):
    return small_campaign.directory


@pytest.fixture(scope="session")
def hull(small_campaign):
    """The campaign's hull, which exports are compared with."""
    return final_hull(small_campaign.store)


@pytest.fixture
def export(directory, call, tmp_path):
    """Function that exports the campaign to a name and returns the path."""

    def run(form, name, *words):
        path = tmp_path / name
        code, out, err = call("export", directory, "--format", form, "--output", path, *words)
        assert (code, out) == (0, ""), err
        assert str(path) in err
        return path

    return run


@pytest.fixture
def copied_directory(directory, copied_campaign, mongo, tmp_path):
    """The campaign in a database of the test's own, and its directory: both may be changed."""
    copy = tmp_path / "copied-campaign"
    copy.mkdir()
    text = (directory / "hullscreen.toml").read_text()
    (copy / "hullscreen.toml").write_text(
        re.sub(r'(?m)^name = "test_.*"', f'name = "{mongo.name}"', text)
    )
    return copy


@pytest.fixture
def unstable(copied_directory, copied_campaign, mongo):
    """Hull of the copied campaign with three more phases above it for each of its compounds."""
    database = mongo.database
    for entry in final_hull(copied_campaign).entries:
        found = database.structures.find_one({"index": entry.structure_index}, {"_id": 0})
        result = database.dft_results.find_one({"key": found["final"]["key"]}, {"_id": 0})
        for number, height in ((1000, 0.002), (2000, 0.05), (3000, 0.09)):
            key, index = f"{result['key'][:-6]}{number}", found["index"] + number
            energy = result["energy"] + height * entry.nsites
            final = {**found["final"], "key": key, "energy_per_atom": energy / entry.nsites}
            database.dft_results.insert_one({**result, "key": key, "energy": energy})
            database.structures.insert_one(
                {**found, "index": index, "order": found["order"] + number, "final": final}
            )
    return final_hull(copied_campaign)


@pytest.fixture
def hostile_names(unstable, mongo):
    """Hostile names of prototypes by structure; the directory is `copied_directory`."""
    relaxed = [entry.structure_index for entry in unstable.entries]
    names = {index: HOSTILE[place % len(HOSTILE)] for place, index in enumerate(relaxed)}
    for index, name in names.items():
        mongo.database.structures.update_one({"index": index}, {"$set": {"prototype": name}})
    return names
