"""How responses of an API server that are long, refused or cut short reach the operator."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kubernetes.client import Configuration

from rft_operator.cluster import Cluster, ClusterError, NotFound, Unavailable

NODES = b'{"kind":"NodeList","items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}],"metadata":{}}'


@contextmanager
def answering(status: int, body: bytes, missing: int = 0) -> Iterator[Cluster]:
    """Serve one response, whose length is ``missing`` bytes more than are sent before the connection ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) + missing))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = bool(missing)

        def log_message(self, format: str, *args: object) -> None:
            """Write no log."""

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


def test_nodes_come_one_at_a_time_as_often_as_they_are_read() -> None:
    with answering(200, NODES) as cluster:
        assert [names(cluster), names(cluster)] == [["a", "b"]] * 2


def test_a_list_that_is_cut_short_is_unavailable_after_what_was_sent() -> None:
    with answering(200, NODES[: NODES.index(b'{"metadata":{"name":"b"')], missing=40) as cluster:
        nodes = cluster.nodes()
        with pytest.raises(Unavailable, match="GET api/v1/nodes: "):
            list(nodes)


def test_a_refused_list_raises_with_its_first_item() -> None:
    with answering(403, b'{"message":"nodes is forbidden"}') as cluster:
        nodes = cluster.nodes()
        with pytest.raises(ClusterError, match="nodes is forbidden"):
            next(nodes)
    with answering(404, b"{}") as cluster, pytest.raises(NotFound):
        list(cluster.workloads("team"))


def test_a_refusal_that_is_cut_short_is_unavailable() -> None:
    with answering(503, b'{"message":', missing=40) as cluster, pytest.raises(Unavailable):
        names(cluster)
