"""Simulates kubelets and trainers: sets pods to Running, and sends the trainers' reports."""

import asyncio
import json
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp

from bench.scale.api import ACCOUNT, CONFIG_MAPS, PODS, Api, Json, each, until
from rft_run.report import REPORT_PATH, TOKEN_AUDIENCE


@dataclass
class Trainer:
    """A simulated trainer: a pod with the status Running, and the pod's token."""

    pod: Json
    address: str
    token: str = ""
    sequence: int = 0

    @property
    def job(self) -> str:
        """Name of the trainer's RFTJob."""
        return str(self.pod["metadata"]["labels"]["rft.dev/job-name"])

    def report(self) -> bytes:
        """Return the next report. It is as large as a report in the middle of a real run."""
        self.sequence += 1
        step = self.sequence
        points = [{"step": i + 1, "reward": round(0.3 + i / 1000, 4)} for i in range(min(step, 50))]
        phases = {"rollout": 5.1, "grade": 0.2, "update": 4.3, "publish": 0.4}
        run = {
            "progress": {
                "step": step, "totalSteps": 1000, "totalStepsEstimated": False, "epoch": 1,
                "percent": step / 10, "etaSeconds": 10.0 * (1000 - step), "stage": "training",
                "updatedAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
            "reward": {
                "latest": points[-1]["reward"], "best": points[-1]["reward"], "baseline": 0.3,
                "graders": {"right": 0.31, "form": 0.72}, "history": points,
            },
            "metrics": {
                "loss": 0.01, "kl": 0.002, "entropy": 0.9, "clipFraction": 0.01, "gradNorm": 0.4,
                "tokensPerSecond": 2100.0, "stepSeconds": 10.0, "phases": phases,
            },
            "usage": {"gpuSeconds": 10.0 * step, "promptTokens": 900 * step, "completionTokens": 9000 * step},
        }  # fmt: skip
        attempt = self.pod["metadata"]["uid"]
        return json.dumps({"version": 1, "attempt": attempt, "sequence": step, "run": run}).encode()


@dataclass
class Reported:
    """Response times of the reports, in seconds, and their HTTP statuses."""

    first: list[float] = field(default_factory=list)
    """Response times of each job's first report. For this report, the API server reviews the pod's token."""
    seconds: list[float] = field(default_factory=list)
    """Response times of all reports except each job's first one."""
    statuses: Counter[int] = field(default_factory=Counter)


async def trainers(api: Api, count: int) -> list[Trainer]:
    """Return a simulated running trainer for each RFTJob."""

    async def there() -> bool:
        return len((await api.call("GET", PODS))["items"]) >= count

    await until("the Job controller has created the pods", there)
    pods = (await api.call("GET", PODS))["items"]
    found = [Trainer(pod, address(number)) for number, pod in enumerate(pods)]

    async def start(trainer: Trainer) -> None:
        metadata = trainer.pod["metadata"]
        state = {"name": "trainer", "image": "x", "imageID": "x", "ready": True, "restartCount": 0}
        state["state"] = {"running": {"startedAt": metadata["creationTimestamp"]}}
        status = {"phase": "Running", "containerStatuses": [state]}
        await api.call("PATCH", f"{PODS}/{metadata['name']}/status", {"status": status})
        trainer.token = await token_of(api, trainer.pod)

    await each(found, start)
    return found


def address(number: int) -> str:
    """Return this machine's IP address from which the trainer with this number sends its reports."""
    return f"127.1.{number // 250}.{number % 250 + 1}"


async def token_of(api: Api, pod: Json) -> str:
    """Return a token that is bound to a pod, as a kubelet would mount it."""
    metadata = pod["metadata"]
    bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
    spec = {"audiences": [TOKEN_AUDIENCE], "expirationSeconds": 3600, "boundObjectRef": bound}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return str((await api.call("POST", f"{ACCOUNT}/token", body))["status"]["token"])


async def push(trainer: Trainer, url: str, trust: ssl.SSLContext) -> int:
    """Send one report from the trainer's own address. Return the HTTP status."""
    connector = aiohttp.TCPConnector(ssl=trust, local_addr=(trainer.address, 0), force_close=True)
    headers = {"Authorization": f"Bearer {trainer.token}", "Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as session,
        session.post(f"{url}{REPORT_PATH}", data=trainer.report()) as answer,
    ):
        await answer.read()
        return answer.status


async def report(
    everyone: Sequence[Trainer], url: str, trust: ssl.SSLContext, every: float, rounds: int
) -> Reported:
    """Send ``rounds`` reports of each trainer to ``url``, one every ``every`` seconds.

    The trainers' reports are evenly distributed over the ``every`` seconds. Each report has a planned time.
    Its duration is measured from the planned time. So if a report is sent late, the delay counts too.
    """
    said = Reported()
    started = time.monotonic()

    async def one(number: int, trainer: Trainer) -> None:
        for turn in range(rounds):
            due = started + every * (turn + number / len(everyone))
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            said.statuses[await push(trainer, url, trust)] += 1
            (said.seconds if turn else said.first).append(time.monotonic() - due)

    await asyncio.gather(*(one(number, trainer) for number, trainer in enumerate(everyone)))
    return said


async def trust_of(api: Api) -> ssl.SSLContext:
    """Return a TLS context that trusts the CA of the operator."""
    found = (await api.call("GET", f"{CONFIG_MAPS}?limit=50"))["items"]
    bundle = next(o["data"]["ca.crt"] for o in found if o["metadata"]["name"].endswith("-ca"))
    return ssl.create_default_context(cadata=bundle)
