import threading
import time
from pathlib import Path

import pytest

from hullscreen.potentials.errors import CampaignError
from hullscreen.workflows.campaign_control import begin_work, cancel, pause, resume
from hullscreen.workflows.flows import submit_round
from hullscreen.workflows.worker import work

PATIENCE_S = 60.0


@pytest.fixture
def campaign(make_campaign):
    return make_campaign()


def marks(campaign):
    document = campaign.store.campaign()
    return bool(document.get("paused")), bool(document.get("cancelled"))


def test_pause_and_resume(campaign, tmp_path):
    store = campaign.store
    assert pause(store).alive == []
    assert marks(campaign) == (True, False)
    # Asking twice is asking once.
    pause(store)
    with pytest.raises(CampaignError, match=r"'tiny' is paused; `hullscreen resume .*` lets it go"):
        begin_work(store, tmp_path)
    resume(store)
    assert marks(campaign) == (False, False)
    begin_work(store, tmp_path)
    with pytest.raises(CampaignError, match="neither paused nor cancelled"):
        resume(store)


def test_run_and_resume_go_on_after_cancel(campaign, tmp_path):
    store = campaign.store
    cancel(store)
    assert marks(campaign) == (False, True)
    with pytest.raises(CampaignError, match="is cancelled"):
        pause(store)
    begin_work(store, tmp_path)
    assert marks(campaign) == (False, False)
    cancel(store)
    resume(store)
    assert marks(campaign) == (False, False)


@pytest.mark.parametrize("go_on", [resume, lambda store: begin_work(store, Path("cu-pd"))])
def test_what_was_paused_and_then_cancelled_goes_on_by_one_command(campaign, go_on):
    pause(campaign.store)
    cancel(campaign.store)
    go_on(campaign.store)
    assert marks(campaign) == (False, False)


@pytest.mark.parametrize("stop", [pause, cancel])
def test_a_finished_campaign_has_nothing_to_stop(campaign, stop):
    campaign.store.set_campaign(finished=True)
    with pytest.raises(CampaignError, match="is finished"):
        stop(campaign.store)


def test_a_campaign_that_nobody_has_started_may_begin(mongo, tmp_path):
    from hullscreen.database.campaign_store import CampaignStore

    begin_work(CampaignStore(mongo, "new"), tmp_path)


@pytest.fixture
def at_the_end(tiny_history, campaign, mongo, launchpad, put_back, tmp_path, monkeypatch):
    """The tiny campaign with its last round in the LaunchPad; rockets run elsewhere."""
    monkeypatch.chdir(tmp_path)
    counters = list(launchpad.fw_id_assigner.find({}))
    put_back(mongo, {**tiny_history[-2].after, "fw_id_assigner": counters})
    submit_round(launchpad, campaign, campaign.store.last_round().number)
    return campaign


def test_workers_wait_while_a_campaign_is_paused(at_the_end, launchpad):
    store = at_the_end.store
    pause(store)
    worker = threading.Thread(target=work, args=(launchpad, store), kwargs={"poll_s": 0.01})
    worker.start()
    worker.join(timeout=1.0)
    assert worker.is_alive()
    assert set(launchpad.fireworks.distinct("state")) == {"READY", "WAITING"}
    resume(store)
    worker.join(timeout=PATIENCE_S)
    assert not worker.is_alive()
    assert store.campaign()["finished"]


def test_workers_end_when_a_campaign_is_cancelled_and_others_go_on_later(at_the_end, launchpad):
    store = at_the_end.store
    before = store.count_dft()
    cancel(store)
    began = time.monotonic()
    work(launchpad, store, poll_s=0.01)
    assert time.monotonic() - began < PATIENCE_S
    assert not store.campaign()["finished"]
    assert store.count_dft() == before
    resume(store)
    work(launchpad, store, poll_s=0.01)
    assert store.campaign()["finished"]
