"""rft ui serves the pages of runs only to browsers that send the token. It never changes a run."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.report import write_run
from rft_api.status import RFTJobStatus
from rft_cli.cluster.client import ClusterClient
from rft_cli.commands.ui import _of_cluster, _of_folder
from rft_cli.local.listed import Listed
from rft_cli.main import app
from rft_cli.render.live import PageServer, Runs, runs_page
from rft_run.folder import RunFolder
from tests.api_server import job, served
from tests.manifests import manifest


@contextmanager
def serving(runs: Runs) -> Iterator[PageServer]:
    with PageServer(runs) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server: PageServer, path: str, host: str | None = None, method: str = "GET") -> tuple[int, str]:
    """Return the HTTP status and the body of the response. ``TOKEN`` in the path becomes the server's token.

    ``host`` is the value of the header ``Host``. If it is None, the header has the real address.
    """
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    headers = {} if host is None else {"Host": host}
    connection.request(method, path.replace("TOKEN", server.token), headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    write_run(path / "one", 20, "one")
    (path / "notes").mkdir()
    (path / "link").symlink_to(path / "one")
    return path


@pytest.fixture
def server(folder: Path) -> Iterator[PageServer]:
    with serving(_of_folder(folder)) as server:
        yield server


def test_the_table_leads_to_the_page_of_each_run(server: PageServer) -> None:
    status, table = get(server, "/TOKEN/")
    assert status == 200
    assert '<a href="runs/one">one</a>' in table
    assert "20/20" in table
    assert "link" not in table.partition("<body>")[2]
    status, page = get(server, "/TOKEN/runs/one")
    assert status == 200
    assert "Held-out evaluation" in page
    assert '<meta http-equiv="refresh" content="5">' in page


def test_a_run_that_goes_on_is_shown_as_it_is_now(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "live"
    write_run(path, 10, "live")
    with serving(_of_folder(path)) as server:
        assert "step 10/10" in get(server, "/TOKEN/runs/live")[1]
        write_run(path, 30, "live")
        assert "step 30/30" in get(server, "/TOKEN/runs/live")[1]


@pytest.mark.parametrize(
    "path",
    ["/", "/wrong/", "/TOKENx/", "/TOKEN", "/TOKEN/runs/none", "/TOKEN/runs/..%2Fone", "/TOKEN/one/run.json"],
)
def test_anything_else_is_not_found(server: PageServer, path: str) -> None:
    assert get(server, path) == (404, "")


def test_another_site_cannot_point_to_it(server: PageServer) -> None:
    assert get(server, "/TOKEN/", "evil.example") == (421, "")
    assert get(server, "/TOKEN/", f"localhost:{server.server_port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(server: PageServer, method: str) -> None:
    assert get(server, "/TOKEN/runs/one", method=method)[0] == 501


def test_it_listens_on_this_machine_only(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_a_status_that_cannot_be_read_is_said_in_its_row(tmp_path: Path) -> None:
    write_run(tmp_path / "broken", 10, "broken")
    RunFolder(tmp_path / "broken").status.write_text("[")
    with serving(_of_folder(tmp_path)) as server:
        assert "is not a status" in get(server, "/TOKEN/")[1]
        status, page = get(server, "/TOKEN/runs/broken")
        assert status == 200
        assert "is not a status" in page


def test_names_are_texts_and_links_stay_on_the_server() -> None:
    page = runs_page("<b>", [Listed("a/../<script>", RFTJobStatus(message="<script>x</script>"))])
    assert "<script" not in page
    assert 'href="runs/a%2F..%2F%3Cscript%3E"' in page


def test_the_jobs_of_a_namespace_are_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(tmp_path, monkeypatch) as api:
        found, newer = job("first"), job("newer")
        found["spec"] = manifest()["spec"]
        newer["status"]["novelty"] = 1
        api.jobs = [found, newer]
        with serving(_of_cluster(ClusterClient())) as server:
            table = get(server, "/TOKEN/")[1]
            assert "namespace team" in table
            assert "another version of the operator" in table
            assert "step 2/4" in get(server, "/TOKEN/runs/first")[1]


@pytest.mark.parametrize("arguments", [[], ["none"], [".", "--cluster"]])
def test_a_command_line_that_names_no_runs_is_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["ui", *arguments]).exit_code == 2


def test_a_port_that_is_taken_is_named(folder: Path, server: PageServer) -> None:
    result = CliRunner().invoke(app, ["ui", str(folder), "--port", str(server.server_port)])
    assert result.exit_code == 2
    assert f"--port {server.server_port}" in result.stderr
