"""Whether somebody asked for the failures of a DFT job to be computed again."""

from __future__ import annotations

from datetime import datetime

from fireworks import LaunchPad

# How the reason of a job begins some of whose structures failed: not for want of an engine, a
# server or a worker, which is mended without being asked.
FAILED_STRUCTURES = "hullscreen.potentials.errors.DFTError: "


def asked_again_at(launchpad: LaunchPad, fw_id: int) -> datetime | None:
    """When the last run of a Firework ended that failed because of its structures, UTC.

    A Firework with such a run in its past was run again by a person: with ``lpad rerun_fws``, or
    with ``hullscreen run`` once its campaign could not go on. What failed later than this moment
    failed in answer to that. None: nobody asked.
    """
    ended = []
    for launch in launchpad.get_fw_by_id(fw_id).archived_launches:
        stored = launch.action.stored_data if launch.action else {}
        if launch.time_end and FAILED_STRUCTURES in str(
            stored.get("_exception", {}).get("_stacktrace", "")
        ):
            ended.append(launch.time_end)
    return max(ended, default=None)
