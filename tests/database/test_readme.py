"""What the page about the database says is there, and nothing is missing."""

import re
from pathlib import Path

from hullscreen.database import restore, schema
from hullscreen.database.campaign_parts import FIREWORKS, LAUNCHES, OF_WORKERS, SHARED, WORKFLOWS
from hullscreen.database.indexes import INDEXES
from hullscreen.launch.commands.db import command

PAGE = (Path(__file__).parents[2] / "database" / "README.md").read_text(encoding="utf-8")


def test_every_collection_is_in_the_table():
    rows = [line.split("|") for line in PAGE.splitlines() if line.startswith("| `")]
    table = {name: row[3].strip() for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    ours = {*INDEXES, *OF_WORKERS, schema.COLLECTION, restore.RESTORES}
    assert ours <= table.keys()
    assert {name for name, owner in table.items() if owner == "everybody"} == SHARED
    assert {FIREWORKS, LAUNCHES, WORKFLOWS} <= table.keys()


def test_every_command_in_it_exists():
    named = set(re.findall(r"hullscreen db ([a-z-]+)", PAGE))
    assert named <= command.commands.keys()
    assert {"users", "dump", "restore", "migrate", "remove-campaign"} <= named


def test_the_name_of_the_database_comes_before_its_users_and_their_files_after():
    steps = ('name = "alloys"', "hullscreen db users cu-pd", 'uri_file = "hullscreen-write.uri"')
    places = [PAGE.index(f"\n    {step}") for step in steps]
    assert places == sorted(places)
