"""Attacks on the ingest with real tokens.

Each attack is refused and changes no status. No token is in the log. test_operator_ingest.py tests reports
with invalid content.
"""

import asyncio
import base64
import gc
import itertools
import json
import ssl
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import aiohttp
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from bench.connections import KINDS, addresses, crowd, measure, percentile, resident_mib
from rft_operator.listener import Limits
from rft_run.report import REPORT_PATH
from tests.integration.ingest_support import Submit, Trainer, body
from tests.integration.operator_support import Api, Operator, Run
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
ACCOUNTS = "api/v1/namespaces/{}/serviceaccounts/default/token"
FLOOD = 500
"""Number of requests that the flood sends as fast as the operator accepts them."""
AT_ONCE = 32


@pytest.fixture
def trainer(submit: Submit, operator: Operator, api: Api) -> Trainer:
    """A simulated trainer that has reported step 3."""
    trainer = Trainer(submit(), operator, api)
    assert trainer.push(body(trainer.pod, 3)) == 200
    wait_until("step 3", lambda: trainer.run.status.get("progress", {}).get("step") == 3)
    return trainer


class Attack(NamedTuple):
    """A report, and the refusal that is expected for it."""

    token: str | None
    """The token that is sent. None: the request has no token."""
    content: bytes
    """The body of the request."""
    status: int
    """The HTTP status of the refusal."""
    said: str
    """The reason in the operator's log."""


ADDRESSES = (f"127.2.0.{number}" for number in itertools.count(1))
"""One source address for each attack, so that the log shows which attack was refused."""


def refused(trainer: Trainer, attack: Attack) -> None:
    """Send the report. Check the response, the log line, and that the trainer's RFTJob stays the same."""
    before, source = trainer.run.job, next(ADDRESSES)
    tokens = [attack.token] if attack.token is not None else [""]
    assert asyncio.run(flood(trainer, tokens, attack.content, source)) == {attack.status: 1}
    line = f"the report from {source} was refused: {attack.status} {attack.said}"
    assert line in trainer.operator.log.read_text()
    assert trainer.run.job == before
    for token in filter(None, (attack.token, trainer.token)):
        assert token not in trainer.operator.log.read_text()


def of_another_pod(trainer: Trainer, submit: Submit) -> str:
    """Return the token of another job's trainer. It is valid only for the reports of that job."""
    second = trainer.run.job
    second["metadata"] = {"name": f"other-{uuid4().hex[:8]}"}
    api = trainer.run.api
    second.pop("status")
    other = Run(api, api.create("apis/rft.dev/v1alpha1/namespaces/{}/rftjobs", second))
    other.child()
    pod = other.pod()
    other.start_pod(pod)
    return other.token(pod)


def test_the_token_of_another_pod_cannot_report_for_this_job(trainer: Trainer, submit: Submit) -> None:
    token = of_another_pod(trainer, submit)
    said = "the report names another pod than its token"
    refused(trainer, Attack(token, body(trainer.pod, 9), 403, said))


@pytest.fixture
def elsewhere(api: Api) -> Iterator[Api]:
    """A namespace that the operator does not serve."""
    other = Api(api._cluster, f"rft-it-{uuid4().hex[:8]}")
    other.call("POST", "api/v1/namespaces", {"metadata": {"name": other.namespace}})
    wait_until(
        "the account 'default'", lambda: other.find("api/v1/namespaces/{}/serviceaccounts", "default"), 60
    )
    yield other
    other.call("DELETE", f"api/v1/namespaces/{other.namespace}")


def test_a_pod_with_the_same_name_and_labels_in_another_namespace_is_refused(
    trainer: Trainer, elsewhere: Api
) -> None:
    metadata = trainer.pod["metadata"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        # The copy has no owner reference: its owner is in another namespace, so the garbage collector would
        # delete the copy.
        "metadata": {"name": metadata["name"], "labels": metadata["labels"]},
        "spec": {
            # Old API servers refuse a pod that mounts a token until its account has a Secret.
            "automountServiceAccountToken": False,
            "nodeSelector": {"rft.dev/none": "here"},
            "containers": [{"name": "trainer", "image": "rft-test/none:1"}],
        },
    }
    made = elsewhere.create("api/v1/namespaces/{}/pods", pod)
    token = Run.token(_Elsewhere(elsewhere), made)  # type: ignore[arg-type]
    said = "this operator does not serve the namespace of the pod"
    refused(trainer, Attack(token, body(trainer.pod, 9), 403, said))


class _Elsewhere(NamedTuple):
    """A stand-in for ``Run`` with only the attribute that ``Run.token`` reads."""

    api: Api


def test_tokens_for_another_audience_are_refused(trainer: Trainer) -> None:
    content = body(trainer.pod, 9)
    refused(trainer, Attack(trainer.run.token(trainer.pod, "vault"), content, 401, "the token is not valid"))
    default = trainer.run.token(trainer.pod, "https://kubernetes.default.svc")
    refused(trainer, Attack(default, content, 401, "the token is not valid"))
    refused(trainer, Attack(None, content, 401, "the request needs a bearer token"))


@pytest.fixture
def key(described: dict[str, str]) -> rsa.RSAPrivateKey:
    """The key with which the API server signs service account tokens."""
    path = Path(described.get("service_account_key", ""))
    if not path.is_file():
        pytest.skip("needs the API server's signing key: only a cluster of `make cluster-up` has it")
    found = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(found, rsa.RSAPrivateKey)
    return found


def signed_again(token: str, key: rsa.RSAPrivateKey, seconds: int) -> str:
    """Return the token with times that are ``seconds`` earlier, signed with the API server's key."""
    head, claims, _ = (part + "=" * (-len(part) % 4) for part in token.split("."))
    said = json.loads(base64.urlsafe_b64decode(claims))
    said |= {name: said[name] - seconds for name in ("iat", "nbf", "exp")}
    plain = ".".join((head.rstrip("="), _base64(json.dumps(said).encode())))
    return f"{plain}.{_base64(key.sign(plain.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def test_an_expired_token_is_refused(trainer: Trainer, key: rsa.RSAPrivateKey) -> None:
    fresh = signed_again(trainer.token, key, 60)
    assert trainer.push(body(trainer.pod, 4), fresh) == 200, (
        "a token that is signed again is accepted if it has not expired"
    )
    wait_until("step 4", lambda: trainer.run.status["progress"]["step"] == 4)
    expired = signed_again(trainer.token, key, 3700)
    refused(trainer, Attack(expired, body(trainer.pod, 9), 401, "the token is not valid"))


def test_rewards_that_are_nan_or_infinite_are_refused(trainer: Trainer) -> None:
    for number in (b"NaN", b"Infinity", b"1e999"):
        content = body(trainer.pod, 9).replace(b'"latest": 0.09', b'"latest": ' + number)
        assert number in content
        refused(trainer, Attack(trainer.token, content, 400, "the body is not a valid report: "))


def test_invalid_json_is_refused(trainer: Trainer) -> None:
    refused(trainer, Attack(trainer.token, body(trainer.pod, 9)[:-5], 400, "the body is not a valid report"))
    deep = b"[" * 30_000
    refused(trainer, Attack(trainer.token, deep, 400, "the body is not a valid report"))


def test_a_report_of_an_earlier_step_is_refused(trainer: Trainer) -> None:
    back = body(trainer.pod, 2, sequence=9)
    refused(
        trainer, Attack(trainer.token, back, 409, "the report's step 2 is below that of the last report, 3")
    )


def test_ten_megabytes_are_refused_with_and_without_a_content_length(trainer: Trainer) -> None:
    before = trainer.run.job
    ten = 10 * 1024 * 1024
    announced = asyncio.run(_raw(trainer, f"Content-Length: {ten}\r\n\r\n".encode(), b""))
    assert announced == 413, "refused because of its Content-Length, before the body is read"
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    streamed = asyncio.run(_raw(trainer, b"Transfer-Encoding: chunked\r\n\r\n", chunk * (ten // 65536)))
    assert streamed == 413
    assert trainer.run.job == before


async def _raw(trainer: Trainer, head: bytes, content: bytes) -> int:
    """Send a request with these headers and this body. Return the HTTP status."""
    context = ssl.create_default_context(cadata=trainer.ca)
    reader, writer = await asyncio.open_connection("127.0.0.1", trainer.operator.port, ssl=context)
    line = f"POST {REPORT_PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {trainer.token}\r\n"
    writer.write(line.encode() + head + content)
    try:
        # The server may close the connection before it has read a body that is too large.
        return int((await asyncio.wait_for(reader.readline(), 60)).split()[1])
    finally:
        writer.transport.abort()


async def flood(trainer: Trainer, tokens: Sequence[str], content: bytes, source: str) -> Counter[int]:
    """Send one report with each token, all from one address. Return the number of responses by status."""
    context = ssl.create_default_context(cadata=trainer.ca)
    connector = aiohttp.TCPConnector(ssl=context, limit=AT_ONCE, local_addr=(source, 0))
    statuses: Counter[int] = Counter()

    async with aiohttp.ClientSession(trainer.operator.url, connector=connector) as session:

        async def one(token: str) -> None:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with session.post(REPORT_PATH, data=content, headers=headers) as answer:
                statuses[answer.status] += 1

        await asyncio.gather(*map(one, tokens))
    return statuses


def test_a_flood_of_bad_tokens_causes_few_token_reviews_and_few_log_lines(trainer: Trainer) -> None:
    operator = trainer.operator
    reviews, logged = operator.metric("rft_ingest_token_reviews_total"), len(operator.log.read_text())
    bad = [f"eyJhbGciOiJub25lIn0.{uuid4().hex}." for _ in range(FLOOD)]
    statuses = asyncio.run(flood(trainer, bad, body(trainer.pod, 9), "127.0.0.9"))
    assert set(statuses) <= {401, 429}
    assert statuses[429] > FLOOD / 2
    assert operator.metric("rft_ingest_token_reviews_total") - reviews == statuses[401]
    text = operator.log.read_text()[logged:]
    assert "from 127.0.0.9 was refused: 429 too many requests" in text
    assert text.count("127.0.0.9") < FLOOD / 10
    assert "eyJ" not in text
    assert trainer.push(body(trainer.pod, 4)) == 200, "the limit does not apply to other senders"


def test_a_pod_that_floods_the_ingest_limits_only_itself(trainer: Trainer, submit: Submit) -> None:
    """Both pods send from the same address, as pods behind a node's NAT do."""
    other = of_another_pod(trainer, submit)
    assert trainer.operator.push(trainer.ca, other, body(trainer.pod)) == 403, (
        "the operator has cached its token"
    )
    reviews = trainer.operator.metric("rft_ingest_token_reviews_total")
    statuses = asyncio.run(flood(trainer, [other] * FLOOD, b"{}", "127.0.0.1"))
    assert set(statuses) <= {400, 429}
    assert statuses[429] > FLOOD / 2
    assert trainer.operator.metric("rft_ingest_token_reviews_total") == reviews
    for step in range(4, 9):
        assert trainer.push(body(trainer.pod, step)) == 200
    wait_until("step 8", lambda: trainer.run.status["progress"]["step"] == 8)


CROWD = 1000
"""Number of open connections that never send a whole request."""


# asyncio does not close the client's sockets of some cancelled TLS handshakes, and Python then warns.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_reports_are_answered_while_a_thousand_connections_send_no_request(
    kind: str, trainer: Trainer
) -> None:
    operator = trainer.operator
    context = ssl.create_default_context(cadata=trainer.ca)
    before = resident_mib(operator.pid)

    async def test() -> tuple[float, list[float], int]:
        async with crowd(operator.port, kind, CROWD, addresses(CROWD), context):
            await asyncio.sleep(1)
            assert (
                await asyncio.to_thread(operator.metric, "rft_ingest_connections") > Limits().connections / 2
            )
            return await measure(operator.pid, lambda: trainer.push(body(trainer.pod, 3)) == 200, seconds=5)

    highest, took, failed = asyncio.run(test())
    gc.collect()
    p99 = percentile(took, 0.99)
    print(f"{kind}: {before:.0f} to {highest:.0f} MiB; {len(took)} reports, {failed} failed, p99 {p99:.2f} s")
    assert took
    assert not failed
    assert highest - before < 120
