"""How the operator's client of the API server handles long, refused and truncated responses."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kubernetes.client import Configuration

from rft_operator.cluster import Cluster, ClusterError, Conflict, NotFound, Unavailable

NODES = b'{"kind":"NodeList","items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}],"metadata":{}}'


def in_chunks(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])


@contextmanager
def answering(
    status: int,
    body: bytes,
    *,
    missing: int = 0,
    chunk: int = 0,
    connections: list[object] | None = None,
    paths: list[str] | None = None,
) -> Iterator[Cluster]:
    """Run a server that answers every request with ``status`` and ``body``. Yield a client of the server.

    - ``missing`` is the number of bytes by which Content-Length is larger than the sent body.
    - ``chunk`` is the size of the response's chunks in bytes. 0: the response has no chunks.
    - ``connections`` is a list. The client's address of each new connection is added to it.
    - ``paths``, if given, gets the path of each request, with its query.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            if connections is not None:
                connections.append(self.client_address)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def do_GET(self) -> None:
            if paths is not None:
                paths.append(self.path)
            self.send_response(status)
            if chunk:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(len(body) + missing))
            self.end_headers()
            self.wfile.write(in_chunks(body, chunk) if chunk else body)
            self.close_connection = bool(missing)

        def log_message(self, format: str, *args: object) -> None:
            """Do not log requests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{server.server_port}"
        cluster = Cluster(configuration)
        try:
            yield cluster
        finally:
            cluster._pool.clear()
            server.shutdown()
            thread.join()


def names(cluster: Cluster) -> list[str]:
    return [node["metadata"]["name"] for node in cluster.nodes()]


@pytest.mark.parametrize("chunk", [0, 7, 1000])
def test_successive_lists_share_a_connection(chunk: int) -> None:
    connections: list[object] = []
    with answering(200, NODES, chunk=chunk, connections=connections) as cluster:
        assert [names(cluster) for _ in range(3)] == [["a", "b"]] * 3
    assert len(connections) == 1


def test_a_list_is_complete_after_an_earlier_one_that_was_not_read_to_its_end() -> None:
    with answering(200, NODES, chunk=7) as cluster:
        nodes = cluster.nodes()
        next(nodes)
        nodes.close()  # type: ignore[attr-defined]
        assert names(cluster) == ["a", "b"]


def test_a_truncated_list_raises_unavailable_after_its_complete_items() -> None:
    with answering(200, NODES[: NODES.index(b'{"metadata":{"name":"b"')], missing=40) as cluster:
        nodes = cluster.nodes()
        with pytest.raises(Unavailable, match="GET api/v1/nodes: "):
            list(nodes)


def test_a_refused_list_raises_when_its_first_item_is_read() -> None:
    with answering(403, b'{"message":"nodes is forbidden"}') as cluster:
        nodes = cluster.nodes()
        with pytest.raises(ClusterError, match="nodes is forbidden"):
            next(nodes)
    with answering(404, b"{}") as cluster, pytest.raises(NotFound):
        list(cluster.workloads("team"))


def test_a_truncated_refusal_raises_unavailable() -> None:
    with answering(503, b'{"message":', missing=40) as cluster, pytest.raises(Unavailable):
        names(cluster)


JOB = {"kind": "Job", "metadata": {"name": "sums-x", "namespace": "team"}}
SIDE_EFFECTS = b'{"message":"admission webhook \\"a.example.com\\" does not support dry run"}'


def test_a_dry_run_asks_the_api_server_to_store_nothing() -> None:
    paths: list[str] = []
    with answering(201, b"{}", paths=paths) as cluster:
        assert cluster.takes(JOB) is True
    assert paths == ["/apis/batch/v1/namespaces/team/jobs?dryRun=All"]


def test_a_dry_run_that_a_webhook_with_side_effects_prevents_is_no_refusal() -> None:
    with answering(400, SIDE_EFFECTS) as cluster:
        assert cluster.takes(JOB) is False
        with pytest.raises(ClusterError, match="does not support dry run"):
            cluster.create(JOB)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, ClusterError), (403, ClusterError), (409, Conflict), (500, Unavailable)]
)
def test_a_refused_dry_run_raises_what_the_creation_would_raise(
    status: int, kind: type[ClusterError]
) -> None:
    with answering(status, b'{"message":"exceeded quota: few"}') as cluster:
        for request in (cluster.takes, cluster.create):
            with pytest.raises(ClusterError, match="exceeded quota: few") as refused:
                request(JOB)
            assert type(refused.value) is kind
