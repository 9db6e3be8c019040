"""Who may see the dashboard: whoever has its token, from this machine's own pages, in JSON.

A browser visits once with the token and goes on with a cookie. Every other web page that the
browser has open is kept out, also those of other ports of this machine, which share the cookie.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from flask import Flask, Request, Response, request
from werkzeug.exceptions import HTTPException

from hullscreen.launch.dashboard.answers import said

TOKEN_BYTES = 32
LARGEST_BODY = 256 * 1024
# Wrong tokens and cookies that are answered one after another, and then one in so many seconds.
GUESSES = 20
SECONDS_PER_GUESS = 2.0
OWN_NAMES = ("127.0.0.1", "localhost")
OWN_PAGES = ("same-origin", "none")
READING = ("GET", "HEAD")
# Dash writes one script into its page, whose hash is added, and styles without end.
POLICY = (
    "default-src 'self'; script-src 'self'{hashes}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' "
    "blob:; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
# Programs and styles that come with the packages; their addresses change with their versions.
KEPT_BY_BROWSERS = "/_dash-component-suites/"
WELCOME = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>hullscreen</title>'
    '<meta http-equiv="refresh" content="0; url=/"><p><a href="/">To the dashboard</a></p></html>'
)
NO_TOKEN = "open the dashboard with the address that `hullscreen dashboard` printed"  # noqa: S105
TOO_MANY_GUESSES = "too many wrong tokens came in; wait a little, then use the printed address"


@dataclass
class Guesses:
    """How many wrong tokens may still be answered as such.

    Attributes
    ----------
    left
        Of the guesses; grows again with time.
    """

    left: float = GUESSES
    counted_at: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def spend(self) -> bool:
        """Count a wrong guess; whether it may be answered as such."""
        with self._lock:
            now = time.monotonic()
            grown = (now - self.counted_at) / SECONDS_PER_GUESS
            self.left, self.counted_at = min(GUESSES, self.left + grown), now
            if self.left < 1.0:
                return False
            self.left -= 1.0
            return True


@dataclass(frozen=True)
class Keys:
    """What lets a browser in.

    Attributes
    ----------
    token
        In the address that is printed.
    session
        Value of the cookie: another one, because the token stays in a browser's history.
    """

    token: str = field(default_factory=lambda: secrets.token_urlsafe(TOKEN_BYTES), repr=False)
    session: str = field(default_factory=lambda: secrets.token_urlsafe(TOKEN_BYTES), repr=False)


def guard(server: Flask, keys: Keys, *, port: int, script_hashes: Sequence[str] = ()) -> None:
    """Put checks before everything that a server answers, and headers on every answer.

    Parameters
    ----------
    port
        Of this machine, on which the server listens.
    script_hashes
        Of scripts that stand in the page itself, as a Content-Security-Policy names them.

    Notes
    -----
    Answers: 401 without token or cookie, 429 after many wrong ones, 403 for another host's name or
    another page, 405, 413, 415 and 400 for what is no small JSON object where one is expected.
    """
    # Cookies do not know ports: two dashboards at a time need two names.
    cookie, guesses = f"hullscreen-{port}", Guesses()
    policy = POLICY.format(hashes="".join(f" {one}" for one in script_hashes))
    server.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY

    def check() -> Response | None:
        _check_host(request)
        with_token = request.args.get("token")
        if with_token is not None and _same(with_token, keys.token):
            return _let_in(request, cookie, keys.session)
        _check_origin(request)
        given = request.cookies.get(cookie)
        if given is None or not _same(given, keys.session):
            guessed = with_token is not None or given is not None
            raise (
                said(429, TOO_MANY_GUESSES) if _too_many(guesses, guessed) else said(401, NO_TOKEN)
            )
        if request.method not in (*READING, "POST"):
            raise said(405, f"expected GET or POST, got {request.method}")
        if request.method == "POST":
            _check_json(request)
        return None

    def finish(response: Response) -> Response:
        response.headers.setdefault("Content-Security-Policy", policy)
        for name, value in HEADERS.items():
            response.headers[name] = value
        if not (request.path.startswith(KEPT_BY_BROWSERS) and response.status_code == 200):
            response.headers["Cache-Control"] = "no-store"
        return response

    # Before what Dash does first, and after everything else.
    server.before_request_funcs.setdefault(None, []).insert(0, check)
    server.after_request_funcs.setdefault(None, []).insert(0, finish)


def _same(given: str, expected: str) -> bool:
    """Compare in a time that tells nothing of where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def _too_many(guesses: Guesses, guessed: bool) -> bool:
    return guessed and not guesses.spend()


def _check_host(asked: Request) -> None:
    """Refuse names that others have pointed at this machine.

    Any port will do: a tunnel may begin at another one.
    """
    try:
        name = urlsplit(f"//{asked.host}").hostname
    except ValueError:
        name = None
    if name not in OWN_NAMES:
        raise said(403, f"expected the host {' or '.join(OWN_NAMES)}, got another name")


def _check_origin(asked: Request) -> None:
    """Refuse what another page has asked for, also one of another port of this machine."""
    site, origin = asked.headers.get("Sec-Fetch-Site"), asked.headers.get("Origin")
    if site is not None:
        own = site in OWN_PAGES
    elif origin is not None:
        own = origin == f"http://{asked.host}"
    else:
        own = asked.method in READING
    if not own:
        raise said(
            403,
            "another page asked for this; copy the address that `hullscreen dashboard` printed "
            "into the browser's address bar",
        )


def _let_in(asked: Request, cookie: str, session: str) -> Response:
    """Set the cookie and lead to the address without the token.

    A browser keeps a strict cookie from a redirection that another page began, such as a terminal
    in the browser; a page of our own leads on from there.
    """
    if asked.headers.get("Sec-Fetch-Site", "none") in OWN_PAGES:
        answer = Response(status=303, headers={"Location": "/"})
    else:
        answer = Response(WELCOME, mimetype="text/html")
    answer.set_cookie(cookie, session, httponly=True, samesite="Strict", path="/")
    return answer


def _check_json(asked: Request) -> None:
    """Refuse a body that is no JSON object; what is asked for may still make no sense.

    Raises
    ------
    HTTPException
        413, 415 or 400.
    """
    # A form of another page can send anything but this.
    if asked.mimetype != "application/json":
        raise said(415, "expected Content-Type application/json")
    if (asked.content_length or 0) > LARGEST_BODY:
        raise _too_large()
    try:
        body = asked.get_data(cache=True)
    except HTTPException as error:
        raise _too_large() if error.code == 413 else said(400, "the request ended early") from error
    try:
        found = json.loads(body)
    # Lists within lists exhaust the parser; a number may have too many digits.
    except (ValueError, RecursionError) as error:
        raise said(400, "expected a JSON object, got something that is no JSON") from error
    if not isinstance(found, dict):
        raise said(400, "expected a JSON object, got another kind of value")


def _too_large() -> HTTPException:
    return said(413, f"expected at most {LARGEST_BODY // 1024} KiB")
