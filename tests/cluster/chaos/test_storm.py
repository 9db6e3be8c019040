"""Campaigns that everything happens to end as if nothing had; `storm.py` runs longer ones."""

import importlib.util
import random
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
N_FAULTS = 20


@pytest.fixture
def storm_module(monkeypatch):
    """The script as a module; the workers' own modules are not on this process's path."""
    spec = importlib.util.spec_from_file_location("storm", HERE / "storm.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "storm", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_a_campaign_in_a_storm_ends_as_if_nothing_had_happened(storm_module, tmp_path):
    with storm_module.ReplicaSet(tmp_path / "servers") as servers:
        storm = storm_module.Storm(tmp_path, servers, random.Random(0))
        storm.blow(N_FAULTS)
    assert storm.faults.total() == N_FAULTS
    assert len(storm.faults) >= 5, "most kinds of faults should have been possible"
    assert storm.problems == []
