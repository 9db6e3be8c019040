"""Who holds which step of a campaign, and whether they are still at it.

A claim is a document whose ``token`` grows by one whenever somebody takes or revokes it (a fencing
token: M. Kleppmann, Designing Data-Intensive Applications, O'Reilly 2017, chapter 8). Whoever has
an older token has lost the step, however slow they were to notice. ``beats`` grows while the holder
lives; times are the server's, so that clocks of nodes do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from hullscreen.database.collections import Collections

NOBODY = ""


@dataclass(frozen=True)
class Claim:
    """A step that somebody holds, has held, or had taken away.

    Attributes
    ----------
    fw_id
        Of the Firework.
    token
        Number of times that it was taken or revoked.
    holder
        FWorker name of the process at work; empty if there is none.
    job_id
        Of the queue's job that the process runs in; empty outside a queue.
    beats
        Signs of life so far.
    heartbeat_s
        Seconds from one of them to the next; zero if that is unknown.
    """

    fw_id: int
    token: int = 0
    holder: str = NOBODY
    job_id: str = ""
    beats: int = 0
    heartbeat_s: float = 0.0


class Claims(Collections):
    """The claims of one campaign."""

    def take(
        self,
        fw_id: int,
        *,
        category: str,
        holder: str,
        host: str,
        job_id: str,
        heartbeat_s: float = 0.0,
    ) -> int:
        """Hold a step from now on, whoever held it before; its token."""
        fields = {
            "campaign": self.name,
            "category": category,
            "holder": holder,
            "host": host,
            "job_id": job_id,
        }
        # Literals, because texts that begin with $ would be read as fields.
        values: dict[str, Any] = {name: {"$literal": text} for name, text in fields.items()}
        values |= {
            "beats": 0,
            "heartbeat_s": heartbeat_s,
            "began_at": "$$NOW",
            "seen_at": "$$NOW",
        }
        token = {"$add": [{"$ifNull": ["$token", 0]}, 1]}
        change = [{"$set": {**values, "token": token}}]
        found = self._retry(
            lambda: self._database.claims.find_one_and_update(
                {"_id": fw_id}, change, upsert=True, return_document=ReturnDocument.AFTER
            )
        )
        assert found is not None, "what is upserted is returned"  # noqa: S101
        return int(found["token"])

    def beat(self, fw_id: int, token: int) -> bool:
        """Give a sign of life; False if the step is no longer held with this token."""
        change = [{"$set": {"beats": {"$add": ["$beats", 1]}, "seen_at": "$$NOW"}}]
        query = {"_id": fw_id, "token": token}
        return (
            self._retry(lambda: self._database.claims.update_one(query, change)).matched_count > 0
        )

    def is_held(self, fw_id: int, token: int) -> bool:
        """Whether nobody has taken or revoked the step since this token."""
        query = {"_id": fw_id, "token": token}
        return self._retry(lambda: self._database.claims.find_one(query, {"_id": 1})) is not None

    def release(self, fw_id: int, token: int) -> None:
        """Hold a step no longer; nothing happens if somebody else does."""
        change = {"$set": {"holder": NOBODY}}
        self._retry(
            lambda: self._database.claims.update_one({"_id": fw_id, "token": token}, change)
        )

    def revoke(self, fw_id: int, token: int) -> bool:
        """Take a step away from whoever holds it with this token; False if that has changed.

        Token 0 stands for a step that nobody has held so far.
        """
        change = {"$inc": {"token": 1}, "$set": {"holder": NOBODY, "campaign": self.name}}
        query = {"_id": fw_id, "token": token}
        try:
            result = self._retry(
                lambda: self._database.claims.update_one(query, change, upsert=token == 0)
            )
        except DuplicateKeyError:
            return False
        return result.matched_count > 0 or result.upserted_id is not None

    def take_calculation(self, key: str, fw_id: int, token: int) -> Claim | None:
        """Let a step compute something, unless another step does that now: its claim.

        Steps of other campaigns count as well: they share what DFT has computed.
        """
        mine = {"fw_id": fw_id, "token": token}
        while True:
            found = self._retry(
                lambda: self._database.calculations.find_one_and_update(
                    {"_id": key}, {"$setOnInsert": mine}, upsert=True,
                    return_document=ReturnDocument.AFTER,
                )
            )  # fmt: skip
            assert found is not None, "what is upserted is returned"  # noqa: S101
            theirs = found["fw_id"], found["token"]
            if theirs == (fw_id, token):
                return None
            claim = self.of(theirs[:1]).get(theirs[0])
            if claim is not None and claim.token == theirs[1] and claim.holder != NOBODY:
                return claim
            self.leave_calculation(key, *theirs)

    def leave_calculation(self, key: str, fw_id: int, token: int) -> None:
        """Let others compute it; nothing happens if another step does."""
        query = {"_id": key, "fw_id": fw_id, "token": token}
        self._retry(lambda: self._database.calculations.delete_one(query))

    def of(self, fw_ids: Iterable[int]) -> dict[int, Claim]:
        """Claims of these Fireworks; those that nobody has ever held are missing."""
        query = {"_id": {"$in": list(fw_ids)}}
        return {claim.fw_id: claim for claim in self._claims(query)}

    def held_by(self, holder: str) -> list[Claim]:
        """What a process holds, as the database has it."""
        return self._claims({"campaign": self.name, "holder": holder})

    def _claims(self, query: dict[str, Any]) -> list[Claim]:
        documents = self._retry(lambda: list(self._database.claims.find(query)))
        return [
            Claim(
                document["_id"],
                document["token"],
                document["holder"],
                document.get("job_id", ""),
                document.get("beats", 0),
                document.get("heartbeat_s", 0.0),
            )
            for document in documents
        ]
