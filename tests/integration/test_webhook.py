"""A real API server calls the webhook on this machine: refusals, warnings, and a webhook that fails."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import urllib3

from rft_advice import advise_job
from rft_api.validation import check
from rft_operator.webhook.server import VALIDATE_PATH
from rft_operator.webhook.warnings import fitted
from tests.integration.operator_support import RFTJOBS, ROOT, Api, Object, has_cel
from tests.manifests import manifest as small
from tests.parity.cases import cases
from tests.parity.gates import ALL_RULES, api_server
from tests.ports import free_ports
from tests.violations import VIOLATIONS, Violation
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
CONFIGURATIONS = "apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
SECRETS = "api/v1/namespaces/{}/secrets"
SECRET = "webhook-tls"
SELECTED = {"rft.dev/test": "webhook"}
DENIED = 'admission webhook "rftjobs.rft.dev" denied the request: '
WITHOUT_STORAGE: Object = {"storage": {}}
"""A spec that breaks a rule across fields, which the schema cannot check."""


class Answer:
    """The API server's answer to a user's request: HTTP status, body, and the texts of warnings."""

    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
        self.status = answer.status
        self.body: Object = json.loads(answer.data)
        # Each warning is a header: code, agent, and a quoted string in UTF-8.
        lines = [line.encode("latin-1").decode() for line in answer.headers.getlist("Warning")]
        assert all(line.startswith('299 - "') for line in lines)
        self.warnings = [re.sub(r"\\(.)", r"\1", line[len('299 - "') : -1]) for line in lines]

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))


class Webhook:
    """A webhook process from this checkout, registered for the tests' namespace."""

    def __init__(self, api: Api, kubeconfig: Path, host: str, log: Path) -> None:
        self._kubeconfig = kubeconfig
        self._host = host
        self._process: subprocess.Popen[bytes] | None = None
        self.api = api
        self.log = log
        self.name = f"rft-test-{api.namespace}"
        self.port, self._health = free_ports(2)

    def start(self) -> None:
        """Start the webhook and wait until the API server calls it."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "operator"),
            "RFT_NAMESPACE": self.api.namespace,
            "RFT_TLS_SECRET": SECRET,
            "RFT_TLS_NAMES": self._host,
            "RFT_TLS_CHECK_SECONDS": "1",
            "RFT_WEBHOOK_CONFIGURATION": self.name,
            "RFT_WEBHOOK_PORT": str(self.port),
            "RFT_HEALTH_PORT": str(self._health),
            "RFT_DRAIN_SECONDS": "0",
        }
        program = [sys.executable, "-m", "rft_operator.webhook", "--kubeconfig", str(self._kubeconfig)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(program, env=environment, stdout=log, stderr=log)

    def stop(self) -> None:
        """Stop the webhook with SIGTERM, as Kubernetes does."""
        if self._process is not None:
            self._process.terminate()
            assert self._process.wait(20) == 0, self.log.read_text()[-4000:]
            self._process = None

    def is_asked(self) -> bool:
        """Return whether the API server calls the webhook. Uses a dry run, which stores no object."""
        assert self._process is None or self._process.poll() is None, self.log.read_text()[-4000:]
        probe = job()
        self.send("POST", f"{RFTJOBS}?dryRun=All", probe)
        return probe["metadata"]["name"] in self.log.read_text()

    def send(self, method: str, path: str, body: Object) -> Answer:
        """Send a request as an administrator. Return the HTTP status, the body and the warnings."""
        cluster: Any = self.api._cluster
        patch = "application/merge-patch+json"
        headers = {"Content-Type": patch if method == "PATCH" else "application/json"}
        url = f"{cluster._configuration.host}/{path.format(self.api.namespace)}"
        return Answer(
            cluster._pool.request(
                method, url, body=json.dumps(body), headers={**headers, **cluster._authorization()}
            )
        )

    def create(self, **spec: Any) -> Answer:
        """Create a job with this spec."""
        return self.send("POST", RFTJOBS, job(**spec))

    def edit(self, name: str, patch: Object) -> Answer:
        """Send a merge patch."""
        return self.send("PATCH", f"{RFTJOBS}/{name}", patch)

    def configuration(self) -> Object:
        """The chart's ValidatingWebhookConfiguration, with a URL instead of the Service."""
        webhook = {
            "name": "rftjobs.rft.dev",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": f"https://{self._host}:{self.port}{VALIDATE_PATH}"},
            "rules": [
                {
                    "apiGroups": ["rft.dev"],
                    "apiVersions": ["v1alpha1"],
                    "resources": ["rftjobs"],
                    "operations": ["CREATE", "UPDATE"],
                    "scope": "Namespaced",
                }
            ],
            "failurePolicy": "Ignore",
            "timeoutSeconds": 5,
            "sideEffects": "None",
            "matchPolicy": "Equivalent",
            "namespaceSelector": {"matchLabels": SELECTED},
        }
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": self.name},
            "webhooks": [webhook],
        }

    def select(self, *, selected: bool) -> None:
        """Turn the webhook on or off for the tests' namespace: set or remove the label that it selects."""
        labels = {key: value if selected else None for key, value in SELECTED.items()}
        self.api.call("PATCH", "api/v1/namespaces/{}", {"metadata": {"labels": labels}})

    def trusted(self) -> str | None:
        """Return the ``caBundle`` (PEM) in the webhook's configuration, or None if it is empty."""
        (webhook,) = self.api.get(CONFIGURATIONS, self.name)["webhooks"]
        bundle = webhook["clientConfig"].get("caBundle")
        return base64.b64decode(bundle).decode() if bundle else None


def job(**spec: Any) -> Object:
    """Return a job whose pod is never scheduled, because no node matches the job's node selector."""
    made = small(
        **{"resources": {"accelerator": {"name": "cpu"}, "nodeSelector": {"rft.dev/none": "x"}}, **spec}
    )
    made["metadata"] = {"name": f"hook-{uuid4().hex[:8]}"}
    return made


def _own_address(server: str, described: dict[str, str]) -> str:
    """Return the address at which the API server reaches this machine."""
    named = os.environ.get("RFT_TEST_WEBHOOK_HOST") or described.get("host_address")
    if named:
        return named
    there = urlsplit(server)
    with socket.create_connection((there.hostname or "", there.port or 443), 10) as connection:
        address = str(connection.getsockname()[0])
    if address.startswith("127.") or address == "::1":
        pytest.skip(
            "the API server is behind a forwarded port: set RFT_TEST_WEBHOOK_HOST to this machine's address"
        )
    return address


@pytest.fixture(scope="module")
def webhook(
    api: Api, kubeconfig: Path, described: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Webhook]:
    """A running webhook that the API server calls."""
    cluster: Any = api._cluster
    host = _own_address(cluster._configuration.host, described)
    webhook = Webhook(api, kubeconfig, host, tmp_path_factory.mktemp("webhook") / "log")
    webhook.select(selected=True)
    api.call("POST", CONFIGURATIONS, webhook.configuration())
    try:
        webhook.start()
        wait_until(f"the API server calls the webhook at {host}", webhook.is_asked, 60)
        yield webhook
    finally:
        api.call("DELETE", f"{CONFIGURATIONS}/{webhook.name}")
        webhook.stop()


@pytest.fixture
def without_cel(api: Api) -> None:
    """Skip the test if the CRD has CEL rules.

    The API server checks CEL rules before it calls the webhook, so the webhook would not get invalid
    manifests.
    """
    if has_cel(api):
        pytest.skip(
            "this server checks CEL rules before it calls the webhook; use `make test-old`, without CEL"
        )


@pytest.fixture
def stored(webhook: Webhook) -> Iterator[Callable[..., str]]:
    """Return a function that creates a job while the webhook is off. The function returns the job's name."""
    made: list[str] = []

    def store(**spec: Any) -> str:
        webhook.select(selected=False)
        wait_until("the API server does not call the webhook", lambda: not webhook.is_asked())
        made.append(webhook.api.create(RFTJOBS, job(**spec))["metadata"]["name"])
        webhook.select(selected=True)
        wait_until("the API server calls the webhook", webhook.is_asked)
        return made[-1]

    yield store
    for name in made:
        if webhook.api.find(RFTJOBS, name) is not None:
            webhook.api.patch(RFTJOBS, name, {"metadata": {"finalizers": None}})
        if webhook.api.find(RFTJOBS, name) is not None:
            webhook.api.delete(RFTJOBS, name)


def test_a_valid_job_is_created(webhook: Webhook) -> None:
    answer = webhook.create()
    assert answer.status == 201, answer.message
    webhook.api.delete(RFTJOBS, answer.body["metadata"]["name"])


@pytest.mark.parametrize(
    "broken", [pytest.param(v, id=f"{rule}-{v.path}") for rule, vs in VIOLATIONS.items() for v in vs]
)
def test_a_spec_that_breaks_a_rule_across_fields_is_refused_at_admission(
    webhook: Webhook, broken: Violation
) -> None:
    answer = webhook.create(**broken.spec)
    assert answer.status == 422
    # The schema may refuse the spec before the webhook does, with its own message.
    assert broken.path in answer.message or not answer.message.startswith(DENIED)


@pytest.mark.usefixtures("without_cel")
def test_the_api_server_with_the_webhook_agrees_with_the_models_on_every_rule(
    webhook: Webhook, judged: "Counter[str]"
) -> None:
    gate = api_server(webhook.api, name="API server with the webhook", evaluates=ALL_RULES, looks_ahead=True)
    rules = [case for case in cases() if case.across_fields and gate.can_judge(case)]
    judged[f"{gate.name}: cases across fields"] += len(rules)
    disagreements = gate.disagreements(rules)
    assert disagreements == [], "\n".join(disagreements)


@pytest.mark.usefixtures("without_cel")
def test_all_problems_are_reported_together_with_their_fields(webhook: Webhook) -> None:
    spec = {**WITHOUT_STORAGE, "graders": [{"name": "right"}], "training": {"batchSizeTokens": 2048}}
    problems = check(job(**spec)).problems
    assert len(problems) == 3
    answer = webhook.create(**spec)
    assert answer.status == 422
    assert answer.message == DENIED + "; ".join(map(str, problems))
    causes = answer.body["details"]["causes"]
    assert [(cause["field"], cause["message"]) for cause in causes] == list(problems)


def test_advice_is_printed_as_warnings(webhook: Webhook) -> None:
    made = job(sampling={"topK": 100})
    valid = check(made).job
    assert valid is not None
    expected = [str(said) for said in advise_job(valid)]
    assert expected
    answer = webhook.send("POST", f"{RFTJOBS}?dryRun=All", made)
    assert answer.status == 201
    assert answer.warnings == fitted(expected)


@pytest.mark.usefixtures("without_cel")
def test_an_old_problem_of_a_stored_job_is_a_warning_and_blocks_no_other_edit(
    webhook: Webhook, stored: Callable[..., str]
) -> None:
    name = stored(**WITHOUT_STORAGE)
    labelled = webhook.edit(name, {"metadata": {"labels": {"team": "a"}}})
    assert (labelled.status, labelled.warnings) == (200, [])
    cancelled = webhook.edit(name, {"spec": {"cancel": True}})
    assert cancelled.status == 200
    assert [text.split(":")[0] for text in cancelled.warnings] == ["spec.storage"]
    worse = webhook.edit(name, {"spec": {"graders": [{"name": "right"}]}})
    assert worse.status == 422
    assert "spec.storage" in worse.message
    assert "spec.graders[0]" in worse.message


@pytest.mark.usefixtures("without_cel")
def test_any_update_of_a_job_that_is_being_deleted_is_allowed(
    webhook: Webhook, stored: Callable[..., str]
) -> None:
    name = stored()
    webhook.api.patch(RFTJOBS, name, {"metadata": {"finalizers": ["rft-test/hold"]}})
    webhook.api.delete(RFTJOBS, name)
    change = {"metadata": {"finalizers": None}, "spec": {"graders": [{"name": "right"}]}}
    assert webhook.edit(name, change).status == 200
    wait_until("the job is deleted", lambda: webhook.api.find(RFTJOBS, name) is None)


def test_training_fields_cannot_change_after_the_start(webhook: Webhook, stored: Callable[..., str]) -> None:
    name = stored()
    status = {"status": {"startTime": "2026-11-22T18:00:00Z", "phase": "Running"}}
    webhook.api.patch(RFTJOBS, f"{name}/status", status)
    refused = webhook.edit(name, {"spec": {"training": {"epochs": 2}}})
    assert refused.status == 422
    assert "spec.training.epochs" in refused.message or not refused.message.startswith(DENIED)
    assert webhook.edit(name, {"spec": {"cancel": True}}).status == 200


def test_a_removed_ca_bundle_is_set_again(webhook: Webhook) -> None:
    before = webhook.trusted()
    assert before is not None
    assert "BEGIN CERTIFICATE" in before
    webhook.api.patch(CONFIGURATIONS, webhook.name, {"webhooks": webhook.configuration()["webhooks"]})
    wait_until("the caBundle is set again", lambda: webhook.trusted() == before)
    wait_until("the API server calls the webhook again", webhook.is_asked)


def test_a_stopped_webhook_blocks_nobody_and_restarts_with_the_same_ca(webhook: Webhook) -> None:
    ca = webhook.trusted()
    secret = webhook.api.get(SECRETS, SECRET)["metadata"]["uid"]
    webhook.stop()
    try:
        answer = webhook.create()
        assert answer.status == 201, answer.message
        webhook.api.delete(RFTJOBS, answer.body["metadata"]["name"])
    finally:
        webhook.start()
    wait_until("the API server calls the webhook again", webhook.is_asked, 60)
    assert webhook.trusted() == ca
    assert webhook.api.get(SECRETS, SECRET)["metadata"]["uid"] == secret


def test_the_log_of_a_review_is_json_and_does_not_contain_the_spec(webhook: Webhook) -> None:
    made = job(model={"name": "org/not-for-the-log"})
    assert webhook.send("POST", f"{RFTJOBS}?dryRun=All", made).status == 201
    said = [json.loads(line) for line in webhook.log.read_text().splitlines()]
    (line,) = [line for line in said if line.get("name") == made["metadata"]["name"]]
    assert (line["message"], line["operation"], line["allowed"]) == ("reviewed", "CREATE", True)
    assert "not-for-the-log" not in json.dumps(said)
