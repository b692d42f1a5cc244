"""Serves pages about runs, for ``rft ui``. The pages can only be read from this machine.

The path of each page begins with a secret token. So the machine's other users cannot read the pages, and
neither can another website in the user's browser. The server only answers requests whose Host header has the
server's own address. This prevents attacks by DNS rebinding.
"""

import secrets
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from rft_cli.errors import UserError
from rft_cli.local.listed import Listed
from rft_cli.local.reported import ReportedRun
from rft_cli.render.html import as_html, environment
from rft_cli.render.views import NONE, number, steps

REFRESH_SECONDS = 5
"""Seconds after which a browser loads a page again."""
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Runs(NamedTuple):
    """The source of the runs in the pages: a folder, or a namespace of a cluster.

    ``list`` is a function that returns all runs with their statuses. Both functions may raise UserError.
    """

    place: str
    """The name of the folder or namespace, for the heading."""
    list: Callable[[], Sequence[Listed]]
    run: Callable[[str], ReportedRun]
    """A function that returns the data of a run. It gets the name of the run, which ``list`` has returned."""


class TableRow(NamedTuple):
    """A row of the table of runs. All cells are texts.

    - ``link``: the address of the run's page, relative to that of the table.
    - ``reward``, ``best``: the newest and the highest mean reward.
    - ``message``: the message of the run's status, or why the status cannot be shown.
    """

    link: str
    name: str
    phase: str
    steps: str
    reward: str
    best: str
    message: str


class PageServer(ThreadingHTTPServer):
    """An HTTP server for the pages, on 127.0.0.1. With port 0 the server uses any free port."""

    daemon_threads = True

    def __init__(self, runs: Runs, port: int = 0) -> None:
        """Open the port. Raises OSError if the port is not free."""
        self.runs, self.token = runs, secrets.token_urlsafe(24)
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def address(self) -> str:
        """The address of the table of runs, with the token."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = 30
    """Time in seconds after which a connection is closed if no data arrive."""

    def do_GET(self) -> None:
        """Answer with the table of runs or with the page of a run.

        A request with a wrong Host header gets status 421. A wrong token or an unknown page gets status 404.
        """
        if self.headers.get("Host") not in (
            f"127.0.0.1:{self.server.server_port}",
            f"localhost:{self.server.server_port}",
        ):
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, "")
            return
        _, token, *rest = urlsplit(self.path).path.split("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self._answer(HTTPStatus.NOT_FOUND, "")
            return
        try:
            page = _page(self.server.runs, [unquote(part) for part in rest])
        except UserError as error:
            page = _problem(str(error))
        self._answer(HTTPStatus.NOT_FOUND if page is None else HTTPStatus.OK, page or "")

    def _answer(self, status: HTTPStatus, page: str) -> None:
        body = page.encode(errors="replace")
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log no request, because its path contains the secret token."""


def _page(runs: Runs, parts: Sequence[str]) -> str | None:
    """Return the HTML of a page, or None if there is no such page.

    ``parts``: the parts of the page's path after the secret token, such as ``runs`` and the name of a run.

    Raises:
        UserError: if the run cannot be read.
    """
    match parts:
        case [""]:
            return runs_page(runs.place, runs.list())
        case ["runs", name] if any(found.name == name for found in runs.list()):
            return as_html(runs.run(name), refresh=REFRESH_SECONDS)
        case _:
            return None


def runs_page(place: str, found: Sequence[Listed]) -> str:
    """Return the HTML of the page with the table of runs. ``place`` is the heading of the page."""
    rows = [_row(each) for each in found]
    return environment().get_template("runs.html.j2").render(place=place, rows=rows, refresh=REFRESH_SECONDS)


def _problem(message: str) -> str:
    return runs_page(message, [])


def _row(found: Listed) -> TableRow:
    status, progress, reward = found.status, found.status.progress, found.status.reward
    made = NONE
    if progress is not None:
        made = steps(progress.step, progress.total_steps, progress.total_steps_estimated)
    return TableRow(
        f"runs/{quote(found.name, safe='')}",
        found.name,
        status.phase or "Pending",
        made,
        number(reward.latest if reward is not None else None),
        number(reward.best if reward is not None else None),
        found.problem or status.message or "",
    )
