"""What the page is told when something cannot be done: one sentence as JSON, never a traceback."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from hullscreen.database.addresses import redact
from hullscreen.database.failures import SERVER_AWAY, explain, is_known
from hullscreen.potentials.errors import CampaignError, DatabaseError, HullscreenError, InputError


class BadRequestError(InputError):
    """A request that does not say what it asks for."""


# Of a failure of ours; the first that fits.
STATUS = (
    (BadRequestError, HTTPStatus.BAD_REQUEST),
    (DatabaseError, HTTPStatus.SERVICE_UNAVAILABLE),
    (InputError, HTTPStatus.NOT_FOUND),
    (CampaignError, HTTPStatus.CONFLICT),
)
# What code that expects a page of ours makes of other shapes of its requests.
SHAPES = (LookupError, TypeError, ValueError, AttributeError, OverflowError)
CALLBACKS = "/_dash-update-component"
NOT_OF_THE_PAGE = "the request is none that the dashboard's page makes"

logger = logging.getLogger(__name__)


def said(status: int, sentence: str) -> HTTPException:
    """An exception that answers a request with a sentence."""
    return HTTPException(response=answer(status, sentence))


def answer(status: int, sentence: str) -> Response:
    """A sentence as the page expects it: ``{"message": …}``."""
    return Response(json.dumps({"message": sentence}), status, mimetype="application/json")


def answer_failures(server: Flask) -> None:
    """Let a server answer every failure with a sentence; nothing of its inside is told."""
    server.register_error_handler(HTTPException, _of_http)
    server.register_error_handler(HullscreenError, _of_ours)
    server.register_error_handler(Exception, _of_others)


def _of_http(error: HTTPException) -> Response | HTTPException:
    if error.response is not None or error.code is None:
        return error
    return answer(error.code, HTTPStatus(error.code).phrase.lower())


def _of_ours(error: HullscreenError) -> Response:
    status = next((code for kind, code in STATUS if isinstance(error, kind)), 500)
    return answer(status, redact(str(error)))


def _of_others(error: Exception) -> Response:
    if is_known(error) or isinstance(error, SERVER_AWAY):
        return _of_ours(explain(error, ""))
    if request.path == CALLBACKS and isinstance(error, SHAPES):
        return answer(400, NOT_OF_THE_PAGE)
    # Not the query, which may hold a token.
    logger.error("%s failed: %s: %s", request.path, type(error).__name__, redact(str(error)))
    return answer(500, "the dashboard could not answer this; its terminal says more")
