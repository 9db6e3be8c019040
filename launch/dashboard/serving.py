"""The dashboard's server: loopback, guarded, threaded, ended by Ctrl-C."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request
from waitress.server import create_server

from hullscreen.launch.campaign_session import Session
from hullscreen.launch.dashboard.actions import ACTIONS
from hullscreen.launch.dashboard.answers import answer_failures, said
from hullscreen.launch.dashboard.logs import read_log
from hullscreen.launch.dashboard.report_file import report_html
from hullscreen.launch.dashboard.security import LARGEST_BODY
from hullscreen.potentials.errors import InputError

HOST = "127.0.0.1"
THREADS = 8
# Logs and actions wait for the database; the page is to be answered beside them.
AT_ONCE = 4
# Connections that are opened and left would otherwise keep others out.
CONNECTIONS = 500
SILENT_S = 20
LOOK_FOR_SILENT_S = 5
END_PATIENCE_S = 2
LARGEST_HEADERS = 32 * 1024
ONLY_SHOWS = (
    "this dashboard only shows; one that was started with `hullscreen dashboard --allow-actions` "
    "can do this"
)


@contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """A socket of this machine alone; 0 takes any port that is free.

    Raises
    ------
    InputError
        The port is taken, or only the administrator may have it.
    """
    with socket.socket() as opened:
        # Connections of a dashboard that has just ended do not keep the next one away.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind((HOST, port))
            opened.listen()
        except OSError as error:
            reasons = {errno.EADDRINUSE: "is taken", errno.EACCES: "needs an administrator"}
            reason = reasons.get(error.errno or 0, f"cannot be used ({error.strerror})")
            raise InputError(
                f"port {port} of {HOST} {reason}: choose another with --port; 0 takes a free one"
            ) from error
        yield opened


def add_endpoints(server: Flask, sessions: Mapping[str, Session], *, allow_actions: bool) -> None:
    """Logs, actions and the report of each campaign, beside the page.

    Parameters
    ----------
    sessions
        Open campaigns by their names.
    allow_actions
        Whether rerun, pause and resume do anything; otherwise they are answered with 403.
    """
    places = threading.BoundedSemaphore(AT_ONCE)

    def session_of(name: str) -> Session:
        if name not in sessions:
            raise said(404, "expected a campaign of this dashboard, got another name")
        return sessions[name]

    @contextmanager
    def taking_a_place() -> Iterator[None]:
        if not places.acquire(blocking=False):
            raise said(503, "the dashboard is busy: ask again in a moment")
        try:
            yield
        finally:
            places.release()

    def show_log(name: str) -> Response:
        session = session_of(name)
        with taking_a_place():
            log = read_log(session, request.args)
        return jsonify({"title": log.title, "lines": log.lines})

    def act(name: str, action: str) -> Response:
        if not allow_actions:
            raise said(403, ONLY_SHOWS)
        session = session_of(name)
        with taking_a_place():
            return jsonify({"message": ACTIONS[action](session, request.get_json())})

    def report(name: str) -> Response:
        session = session_of(name)
        with taking_a_place():
            text = report_html(session.store, session.connection)
        answer = Response(text, mimetype="text/html")
        # It holds scripts of its own, which are not to run as the dashboard's.
        answer.headers.set("Content-Disposition", "attachment", filename=f"{name}.html")
        return answer

    server.add_url_rule("/campaigns/<name>/log", "log", show_log, methods=["GET"])
    server.add_url_rule("/campaigns/<name>/report.html", "report", report, methods=["GET"])
    for action in ACTIONS:
        server.add_url_rule(
            f"/campaigns/<name>/{action}", action, act, methods=["POST"],
            defaults={"action": action},
        )  # fmt: skip
    answer_failures(server)


def serve(server: Flask, opened: socket.socket) -> None:
    """Answer until this process is asked to end by Ctrl-C or SIGTERM; asked again, it ends at once.

    Notes
    -----
    The server has a thread of its own: an exception that a signal raises in the middle of its work
    may be caught there, and the signal lost.
    """
    # It would say on the terminal that somebody waits for a moment, or left early.
    logging.getLogger("waitress").setLevel(logging.CRITICAL)
    waiting: Any = create_server(
        server,
        sockets=[opened],
        threads=THREADS,
        connection_limit=CONNECTIONS,
        channel_timeout=SILENT_S,
        cleanup_interval=LOOK_FOR_SILENT_S,
        max_request_header_size=LARGEST_HEADERS,
        max_request_body_size=2 * LARGEST_BODY,
        # select() knows no more than 1,024 files.
        asyncore_use_poll=True,
        expose_tracebacks=False,
        # No name of a program or its version.
        ident=None,
    )
    asked_to_end = threading.Event()

    def answer() -> None:
        try:
            waiting.run()
        finally:
            asked_to_end.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, lambda *_: asked_to_end.set())
    threading.Thread(target=answer, name="dashboard", daemon=True).start()
    asked_to_end.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    # What waits for a database that is away is left behind.
    waiting.task_dispatcher.shutdown(timeout=END_PATIENCE_S)


@contextmanager
def shown_in_browser(address: str) -> Iterator[None]:
    """Open an address in the desktop's browser, if there is a desktop.

    The browser gets a file that only its user can read and that leads on: every user of the
    machine sees the command lines of all others, and the address holds the token.
    """
    if not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="hullscreen-") as folder:
        page = Path(folder) / "dashboard.html"
        page.touch(mode=0o600)
        page.write_text(
            f'<!doctype html><meta http-equiv="refresh" content="0; url={address}">\n',
            encoding="utf-8",
        )
        opening = threading.Thread(target=webbrowser.open, args=(page.as_uri(),), daemon=True)
        opening.start()
        yield


def names_of(sessions: Sequence[Session]) -> dict[str, Session]:
    """Sessions by the names of their campaigns.

    Raises
    ------
    InputError
        Two of them have the same name.
    """
    found: dict[str, Session] = {}
    for session in sessions:
        other = found.setdefault(session.store.name, session)
        if other is not session:
            raise InputError(
                f"expected campaigns of different names, got {session.store.name!r} in "
                f"{other.directory} and in {session.directory}: open two dashboards"
            )
    return found
