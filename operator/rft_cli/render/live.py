"""Serves HTML pages about runs on 127.0.0.1, for ``rft ui``. Other machines cannot read the pages.

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
    """The source of the runs that the pages show: a folder, or a namespace of a cluster.

    ``list`` is a function that returns all runs with their statuses. ``list`` and ``run`` may raise
    UserError.
    """

    place: str
    """The name of the folder or namespace, for the heading of the page."""
    list: Callable[[], Sequence[Listed]]
    run: Callable[[str], ReportedRun]
    """A function that returns the data of one run. Its argument is the name of a run from ``list``."""


class TableRow(NamedTuple):
    """A row of the table of runs, for one run. All cells are texts.

    - ``link``: the address of the run's page, relative to the address of the table.
    - ``steps``: the number of the last step and of all steps, such as 12/40.
    - ``reward``, ``best``: the mean reward of the newest step, and the highest mean reward of a step.
    - ``message``: the message of the run's status, or the reason why the status cannot be shown.
    """

    link: str
    name: str
    phase: str
    steps: str
    reward: str
    best: str
    message: str


class PageServer(ThreadingHTTPServer):
    """An HTTP server on 127.0.0.1 that serves the table of runs, and a page about each run.

    With port 0 the server uses any free port. The path of each page begins with the secret ``token``.
    """

    daemon_threads = True

    def __init__(self, runs: Runs, port: int = 0) -> None:
        """Create the server and open its port. ``runs`` is the source of the runs that the pages show.

        Raises:
            OSError: the port is not free.
        """
        self.runs, self.token = runs, secrets.token_urlsafe(24)
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def address(self) -> str:
        """The URL of the table of runs. It contains the secret token, without which no page can be read."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = 30
    """Time in seconds after which a connection is closed if no data arrive."""

    def do_GET(self) -> None:
        """Answer a request with the table of runs, or with the page about one run.

        A request with a wrong Host header gets status 421. A wrong token or an unknown page gets status 404.
        If the data cannot be read, the page shows the error message.
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
        """Do nothing: requests are not logged, because their paths contain the secret token."""


def _page(runs: Runs, parts: Sequence[str]) -> str | None:
    """Return the HTML of the page with the given path, or None if there is no such page.

    ``parts`` are the parts of the path after the secret token: [""] for the table of runs, or ``runs`` and
    the name of a run.

    Raises:
        UserError: the runs cannot be read.
    """
    match parts:
        case [""]:
            return runs_page(runs.place, runs.list())
        case ["runs", name] if any(found.name == name for found in runs.list()):
            return as_html(runs.run(name), refresh=REFRESH_SECONDS)
        case _:
            return None


def runs_page(place: str, found: Sequence[Listed]) -> str:
    """Return the HTML of the page with the table of the runs in ``found``. ``place`` is the heading."""
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
