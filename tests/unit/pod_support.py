"""A fake API server that creates pods and runs commands in the pods.

It is for tests of the ``rft`` commands that read a job's volume. A command in a pod is a real process on this
machine, and the volume is a folder on this machine.
"""

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from rft_api.effective import effective
from rft_api.validation import parse
from rft_cli.cluster import reading_pod
from rft_cli.cluster.volume import VolumeReader  # noqa: F401 - imported here, outside of the tests' time
from tests.api_server import kubeconfig
from tests.manifests import manifest

Body = dict[str, Any]
UID = "11111111-2222-3333-4444-555555555555"
CHILD = "sums-12345678"
PODS = "/api/v1/namespaces/team/pods"


def finished_job(**spec: Any) -> Body:
    """Return an RFTJob that succeeded. Its status names the run's folder and the adapter."""
    body = manifest(storage={"persistentVolumeClaim": {"claimName": "runs"}}, **spec)
    derived = effective(parse(body).spec, UID).dump()
    folder = f"/runs/team/{CHILD}"
    return {
        **body,
        "metadata": {"name": "sums", "namespace": "team", "uid": UID},
        "status": {
            "phase": "Succeeded",
            "jobName": CHILD,
            "plan": {"gpus": 0, "device": "cpu", "effective": derived},
            "evaluation": {"rows": 32, "step": 20, "reward": {"base": 0.1, "tuned": 0.4}, "graders": {}},
            "output": {"folder": folder, "adapter": f"{folder}/adapter"},
        },
    }


def child_job() -> Body:
    """Return the child Job of the RFTJob that ``finished_job`` returns."""
    container = {
        "name": "trainer", "image": "registry/trainer:1", "imagePullPolicy": "Never",
        "securityContext": {"runAsUser": 10001},
        "env": [{"name": "HF_TOKEN", "value": "secret"}], "resources": {"limits": {"nvidia.com/gpu": "1"}},
    }  # fmt: skip
    template = {
        "securityContext": {"fsGroup": 10000},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "serviceAccountName": "cloud",
        "containers": [container],
    }
    return {"metadata": {"name": CHILD}, "spec": {"template": {"spec": template}}}


class PodServer:
    """A fake API server. Tests set its fields: its objects, and how it answers requests."""

    def __init__(self, volume: Path) -> None:
        self.volume = volume
        """The folder on this machine that stands for the run's folder on the volume."""
        self.job = finished_job()
        self.child: Body | None = child_job()
        self.made: list[Body] = []
        """The manifests of all pods that were created."""
        self.pods: dict[str, Body] = {}
        self.pod_status: Body = {
            "phase": "Running",
            "containerStatuses": [
                {"name": "reader", "image": "", "imageID": "", "ready": True, "restartCount": 0,
                 "state": {"running": {}}},
            ],
        }  # fmt: skip
        self.cut_after: int | None = None
        """The connection of a ``send`` command is cut before ``sent`` exceeds this number. None: it is never
        cut.
        """
        self.on_created: Callable[[], None] = lambda: None
        """A function that is called after a pod was created, before the client gets the answer."""
        self.deletion_refused = False
        """Whether the deletion of pods is forbidden."""
        self.on_cut: Callable[[], None] = lambda: None
        self.commands: list[list[str]] = []
        """Each command that ran in a pod: its action and its arguments, without the run's folder.

        The actions are ``list``, ``names`` and ``send``.
        """
        self.sent = 0
        """Bytes of output that all ``send`` commands together have sent."""
        self.refused: int | None = None
        """The HTTP status with which commands in pods are refused, such as 403. None: they are allowed."""

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the requests that the server answers."""
        return [
            web.get("/apis/rft.dev/v1alpha1/namespaces/team/rftjobs/sums", self._rftjob),
            web.get(f"/apis/batch/v1/namespaces/team/jobs/{CHILD}", self._child),
            web.get(PODS, self._list),
            web.post(PODS, self._create),
            web.get(PODS + "/{name}", self._pod),
            web.delete(PODS + "/{name}", self._delete),
            web.get(PODS + "/{name}/exec", self._exec),
        ]

    async def _rftjob(self, _request: web.Request) -> web.Response:
        return web.json_response(self.job)

    async def _child(self, _request: web.Request) -> web.Response:
        return web.json_response(self.child or {}, status=200 if self.child else 404)

    async def _list(self, request: web.Request) -> web.Response:
        wanted = dict(pair.split("=") for pair in request.query["labelSelector"].split(","))
        found = [pod for pod in self.pods.values() if pod["metadata"]["labels"] == wanted]
        return web.json_response({"kind": "PodList", "items": found})

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.made.append(body)
        name = body["metadata"]["name"]
        self.pods[name] = {**body, "status": self.pod_status}
        self.on_created()
        return web.json_response(self.pods[name])

    async def _pod(self, request: web.Request) -> web.Response:
        pod = self.pods.get(request.match_info["name"])
        return web.json_response(pod or {}, status=200 if pod else 404)

    async def _delete(self, request: web.Request) -> web.Response:
        if self.deletion_refused:
            return web.json_response({"kind": "Status"}, status=403)
        gone = self.pods.pop(request.match_info["name"], None)
        return web.json_response(gone or {}, status=200 if gone else 404)

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        if self.refused is not None:
            return web.json_response({"kind": "Status"}, status=self.refused)
        [container] = self.pods[request.match_info["name"]]["spec"]["containers"]
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        shell, option, line, _name, action, folder, *others = request.query.getall("command")
        assert [shell, option, line] == ["sh", "-c", 'exec python -c "$RFT_READER" "$@"']
        assert folder == reading_pod.FOLDER
        self.commands.append([action, *others])
        socket = web.WebSocketResponse(protocols=["v4.channel.k8s.io"])
        await socket.prepare(request)
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-I", "-c", environment["RFT_READER"], action, str(self.volume), *others],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        given = asyncio.create_task(_pass_input(socket, process))
        try:
            if await self._pass_output(socket, process, action):
                await self._pass_end(socket, process)
        finally:
            given.cancel()
            if process.returncode is None:
                process.kill()
            await process.communicate()  # wait() would block if the process has output that was not read
        await socket.close()
        return socket

    async def _pass_output(
        self, socket: web.WebSocketResponse, process: asyncio.subprocess.Process, action: str
    ) -> bool:
        assert process.stdout is not None
        while chunk := await process.stdout.read(20_000):
            if action == "send":
                if self.cut_after is not None and self.sent + len(chunk) > self.cut_after:
                    self.on_cut()
                    return False
                self.sent += len(chunk)
            await socket.send_bytes(b"\x01" + chunk)
        return True

    async def _pass_end(self, socket: web.WebSocketResponse, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        await socket.send_bytes(b"\x02" + await process.stderr.read())
        failed = await process.wait() != 0
        end = {"status": "Failure", "message": "exit code 1"} if failed else {"status": "Success"}
        await socket.send_bytes(b"\x03" + json.dumps(end).encode())


async def _pass_input(socket: web.WebSocketResponse, process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    async for message in socket:
        assert message.type == WSMsgType.BINARY
        assert message.data[0] == 0
        process.stdin.write(message.data[1:])


async def _close(_request: web.Request, response: web.StreamResponse) -> None:
    """Close each connection after its response, so that the client leaves none open."""
    if not isinstance(response, web.WebSocketResponse):
        response.headers["Connection"] = "close"
        response.force_close()


@contextmanager
def pods_served(folder: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PodServer]:
    """Run the fake API server during the ``with`` block. Yield the server.

    ``volume`` is the folder of the run. A kubeconfig for the server is written into ``folder``.
    """
    server, loop = PodServer(volume), asyncio.new_event_loop()
    application = web.Application()
    application.add_routes(server.routes())
    application.on_response_prepare.append(_close)
    runner = web.AppRunner(application)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return int(runner.addresses[0][1])

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        path = folder / "kubeconfig"
        path.write_text(kubeconfig(f"http://127.0.0.1:{port}"))
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        monkeypatch.setattr("rft_cli.cluster.volume.POLL_SECONDS", 0.01)
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
