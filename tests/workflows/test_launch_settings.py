"""The table [launch] and those below it: what they refuse, and that they decide no result."""

import pytest

from hullscreen.launch.settings import from_tables
from hullscreen.potentials.errors import SettingsError

CAMPAIGN = {"campaign": {"elements": ["Cu", "Pd"]}}


def settings(**launch):
    return from_tables({**CAMPAIGN, "launch": launch})


def test_they_may_change_while_a_campaign_goes_on():
    plain = settings()
    other = settings(
        queue="slurm", partition="batch", heartbeat_s=3.0, environment={"A": "1"},
        dft={"cores": 32, "jobs": 7, "extra": ["--qos=long"]},
    )  # fmt: skip
    assert other.deciding() == plain.deciding()
    assert other.stored_tables() == plain.stored_tables()
    assert other.launch.dft.jobs == 7


@pytest.mark.parametrize(
    ("walltime", "seconds"), [("00:01:00", 60), ("24:00:00", 86400), ("100:01:02", 360062)]
)
def test_walltimes(walltime, seconds):
    assert settings(relax={"walltime": walltime}).launch.relax.walltime_s == seconds


@pytest.mark.parametrize(
    ("launch", "sentence"),
    [
        ({"queue": "slrum"}, "[launch] queue is \"slrum\", expected 'slurm', 'pbs', 'sge' or ''"),
        (
            {"relax": {"walltime": "2h"}},
            "[launch.relax] walltime: '2h' is no wall time; expected HH:MM:SS, such as 48:00:00",
        ),
        ({"dft": {"walltime": "01:60:00"}}, "[launch.dft] walltime: '01:60:00' is no wall time; "),
        ({"dft": {"walltime": "2-00:00:00"}}, "[launch.dft] walltime: '2-00:00:00' is no wall t"),
        ({"dft": {"walltime": 48}}, "[launch.dft] walltime is 48, expected a string"),
        (
            {"relax": {"walltime": "00:00:59"}},
            "[launch.relax] walltime: in 00:00:59 a worker hardly starts; expected at least 1 min",
        ),
        (
            {"dft": {"extra": ["qos=long"]}},
            "[launch.dft] extra: 'qos=long' is no option of a queue; expected one such as '--qos",
        ),
        ({"parallel_environment": ""}, '[launch] parallel_environment is "", expected: SGE'),
        ({"dft": {"jobs": -1}}, "[launch.dft] jobs is -1, expected greater than or equal to 0"),
        ({"dft": {"cores": 0}}, "[launch.dft] cores is 0, expected greater than or equal to 1"),
        ({"dft": {"memory": "4GB"}}, '[launch.dft] memory is "4GB", expected: Memory of a job as'),
        ({"train": {"core": 1}}, "[launch.train] has no key core; did you mean cores?"),
        ({"partition": "a b"}, '[launch] partition is "a b", expected: Partition (Slurm) or'),
        ({"heartbeat_s": 0}, "[launch] heartbeat_s is 0, expected greater than 0"),
        ({"setup": ["module load x\ny"]}, "[launch] setup: 'module load x\\ny' cannot stand in"),
        # FireWorks would drop the line without a word.
        ({"setup": ["echo $$"]}, "[launch] setup: 'echo $$' cannot stand in a job script"),
        ({"relax": {"extra": ["$$x"]}}, "[launch.relax] extra: '$$x' cannot stand in"),
        ({"environment": {"A B": "1"}}, "[launch] environment: 'A B' is no name of a variable"),
        ({"environment": {"A": 1}}, "[launch.environment] A is 1, expected a string"),
        (
            {"environment": {"HULLSCREEN_DB_URI": "mongodb://a:s3cret@b"}},
            "[launch] environment: HULLSCREEN_DB_URI may hold a password, and job scripts",
        ),
    ],
)
def test_one_sentence_for_each_mistake(launch, sentence):
    with pytest.raises(SettingsError) as caught:
        settings(**launch)
    said = str(caught.value).removeprefix("hullscreen.toml: ")
    assert said.startswith(sentence)
    assert "\n" not in said
    assert "s3cret" not in said
