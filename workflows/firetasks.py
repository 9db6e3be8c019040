"""What FireWorks runs: one thin task per step; users' databases hold their names: keep them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

from fireworks import FiretaskBase, FWAction, explicit_serialize

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.claims import Claims
from hullscreen.database.connection import SERVER_AWAY, Connection
from hullscreen.potentials.errors import ClaimLostError, DatabaseError
from hullscreen.workflows import decisions, dft_steps, potential_steps
from hullscreen.workflows.campaign import Campaign, add_prototypes, open_campaign
from hullscreen.workflows.flows import submit_round
from hullscreen.workflows.holding import holding
from hullscreen.workflows.interruption import StepInterruptedError, interruption
from hullscreen.workflows.recovery import give_back, last_launch_of, leave
from hullscreen.workflows.repetition import asked_again_at
from hullscreen.workflows.tending import Tender


class CampaignTask(FiretaskBase):  # type: ignore[misc]
    """A step of the campaign named in the task; the LaunchPad's database holds its documents."""

    required_params: ClassVar[list[str]] = ["campaign"]

    def run_task(self, fw_spec: dict[str, Any]) -> FWAction:
        """Carry out the step, holding it.

        What ends it without saying anything about it gives it back here: a Firework that has failed
        might let others begin that wait for it. Nobody holds a step that has failed.
        """
        connection, name = connection_of(self.launchpad), self["campaign"]
        claims = Claims(connection, name)
        campaign = open_campaign(CampaignStore(connection, name))
        category, launch_id = fw_spec["_category"], last_launch_of(self.launchpad, self.fw_id)
        with holding(claims, self.fw_id, category, campaign.heartbeat_s) as held:
            mine = replace(campaign, store=CampaignStore(connection, name, held.require), held=held)
            try:
                with Tender(self.launchpad, campaign).in_background(), interruption.step():
                    self.perform(mine)
            except ClaimLostError:
                leave(self.launchpad, self.fw_id, launch_id)
                raise
            except (StepInterruptedError, DatabaseError, *SERVER_AWAY):
                # A server that is away is told later, by whoever looks after the campaign.
                with suppress(*SERVER_AWAY, DatabaseError):
                    if claims.revoke(held.fw_id, held.token):
                        give_back(self.launchpad, held.fw_id)
                raise
            except BaseException:
                # The failure counts, also where the server goes away just now.
                with suppress(*SERVER_AWAY, DatabaseError):
                    claims.release(held.fw_id, held.token)
                raise
            claims.release(held.fw_id, held.token)
        return FWAction()

    def perform(self, campaign: Campaign) -> None:
        """The step itself; repeated, it changes nothing."""
        raise TypeError(f"{type(self).__name__} cannot step for {campaign.store.name}")


def connection_of(launchpad: Any) -> Connection:
    """The database of a LaunchPad."""
    return Connection(
        database=launchpad.db, uri=launchpad.host or "", name=launchpad.db.name, embedded=False
    )


@explicit_serialize
class PrototypesTask(CampaignTask):
    """Writes the pool of prototypes and begins the first round."""

    def perform(self, campaign: Campaign) -> None:
        """Write them, then begin."""
        with campaign.accounting("prototypes"):
            add_prototypes(campaign)
        decisions.first_round(campaign)
        submit_round(self.launchpad, campaign, 0)


class RoundTask(CampaignTask):
    """A step of one round."""

    required_params: ClassVar[list[str]] = ["campaign", "round"]

    @property
    def span(self) -> tuple[int, int]:
        """First and last (exclusive) number of what the task is to do."""
        return self["first"], self["last"]


@explicit_serialize
class LabelTask(RoundTask):
    """DFT single points."""

    def perform(self, campaign: Campaign) -> None:
        """Compute the span's single points."""
        asked_at = asked_again_at(self.launchpad, self.fw_id)
        dft_steps.label(campaign, campaign.store.round(self["round"]), *self.span, asked_at)


@explicit_serialize
class FitTask(RoundTask):
    """The fit of a potential to all labels, and its active set."""

    def perform(self, campaign: Campaign) -> None:
        """Fit the round's potential."""
        potential_steps.fit_potential(campaign, campaign.store.round(self["round"]))


@explicit_serialize
class RelaxTask(RoundTask):
    """Relaxation of a batch of structures with the potential."""

    def perform(self, campaign: Campaign) -> None:
        """Relax the span's structures."""
        potential_steps.relax_structures(campaign, campaign.store.round(self["round"]), *self.span)


@explicit_serialize
class DecideTask(RoundTask):
    """The end of a round: what is labelled, relaxed or dropped next."""

    def perform(self, campaign: Campaign) -> None:
        """Decide, and submit the next round."""
        number = self["round"]
        with campaign.accounting("selection"):
            decisions.decide(campaign, campaign.store.round(number))
        if campaign.store.find_round(number + 1) is not None:
            submit_round(self.launchpad, campaign, number + 1)


@explicit_serialize
class FinalRelaxTask(RoundTask):
    """DFT relaxations of the structures that may be stable."""

    def perform(self, campaign: Campaign) -> None:
        """Relax the span's structures with DFT."""
        asked_at = asked_again_at(self.launchpad, self.fw_id)
        dft_steps.relax_with_dft(
            campaign, campaign.store.round(self["round"]), *self.span, asked_at
        )
