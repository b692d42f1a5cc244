"""Gates: programs that accept a manifest, or refuse the manifest and name a field.

A gate must agree with the pydantic models on everything that the gate can check. Some gates check less than
the models. An API server without CEL checks no rules across fields. An API server that prunes a field does
not report it.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import yaml
from typer.testing import CliRunner

from rft_api import rules
from rft_api.effective import effective
from rft_api.job import RFTJobSpec
from rft_api.problems import InvalidManifest
from rft_api.validation import check
from rft_cli.main import app
from rft_codegen.crd import crd
from rft_operator.cluster import ClusterError
from rft_operator.webhook.review import review
from rft_run.config import read_run_config
from tests.admission import admission_review
from tests.parity.apiserver import complaints
from tests.parity.cases import Case, Sight, sample

Object = dict[str, Any]
ALL_RULES = frozenset(rule.name for rule in rules.RULES)
LIST_MAP_RULES = frozenset({"grader_names_are_unique"})
"""Rules across fields that an API server checks without CEL.

The schema makes the graders a list of type map, so their names must be unique.
"""
_CLI_BATCH = 100
_THREADS = 8


class Verdict(NamedTuple):
    """The result of a gate for one manifest: whether the gate accepts it, and the gate's message."""

    accepted: bool
    text: str


@dataclass(frozen=True)
class Gate:
    """A program that accepts or refuses manifests, and the kinds of cases and rules that it can check."""

    name: str
    judge: Callable[[Sequence[Object]], list[Verdict]]
    sees: frozenset[Sight] = frozenset(Sight)
    rules: frozenset[str] = ALL_RULES

    def can_judge(self, case: Case) -> bool:
        """Return whether this gate can check the case."""
        return case.takes <= self.sees and (not case.rule or case.rule in self.rules)

    def accepts(self, manifest: Object) -> Verdict:
        """Return the gate's verdict on one manifest."""
        return self.judge([manifest])[0]

    def disagreements(self, cases: Sequence[Case]) -> list[str]:
        """Return a message for each case with an unexpected verdict.

        Pass only cases for which ``can_judge`` is true.
        """
        verdicts = self.judge([case.manifest for case in cases])
        return [
            complaint
            for case, verdict in zip(cases, verdicts, strict=True)
            if (complaint := _disagreement(case, verdict))
        ]


def _disagreement(case: Case, verdict: Verdict) -> str:
    if verdict.accepted != (case.refused_at is None):
        said = "accepted" if verdict.accepted else f"refused: {verdict.text[:300]}"
        return f"{case.name}: {said}"
    paths = [path for path in (case.refused_at, case.or_at) if path is not None]
    if paths and not any(names(verdict.text, path) for path in paths):
        return f"{case.name}: the refusal does not name {case.refused_at}: {verdict.text[:300]}"
    return ""


def names(text: str, path: str) -> bool:
    """Return whether ``text`` contains the field's ``path``, in a form that any gate writes.

    API servers write ``graders[0].name`` or ``graders.0.name``. Kubernetes 1.20 omits the index.
    """
    spelled = re.sub(r"\\\[(\d+)\\\]", r"(?:[.\[]\1\]?)?", re.escape(path))
    return re.search(rf"(?<![\w.]){spelled}(?!\w)", text) is not None


# Gates that need no cluster.


def _by_model(manifests: Sequence[Object]) -> list[Verdict]:
    found = [check(manifest).problems for manifest in manifests]
    return [Verdict(not problems, "; ".join(map(str, problems))) for problems in found]


def _by_cli(manifests: Sequence[Object]) -> list[Verdict]:
    verdicts: list[Verdict] = []
    for start in range(0, len(manifests), _CLI_BATCH):
        verdicts += _by_one_call(manifests[start : start + _CLI_BATCH])
    return verdicts


def _by_one_call(manifests: Sequence[Object]) -> list[Verdict]:
    """Return the verdicts of one call of ``rft validate``, with all manifests in one text."""
    text = "".join(f"---\n{yaml_text(manifest)}" for manifest in manifests)
    result = CliRunner().invoke(app, ["validate", "-"], input=text)
    if result.exit_code == 2 and len(manifests) > 1:  # a manifest that cannot be parsed hides the others
        middle = len(manifests) // 2
        return _by_one_call(manifests[:middle]) + _by_one_call(manifests[middle:])
    if result.exit_code == 2:
        return [Verdict(False, result.stderr)]
    assert result.exit_code in (0, 1), result.output
    said = re.split(r"(?m)^stdin", result.stdout)[1:]
    assert len(said) == len(manifests), result.output
    return [Verdict(each.splitlines()[0].endswith(": OK"), each) for each in said]  # advice may follow


def _by_trainer(manifests: Sequence[Object]) -> list[Verdict]:
    return [_by_one_trainer(json.dumps(run_config(manifest["spec"]))) for manifest in manifests]


def _by_one_trainer(text: str) -> Verdict:
    try:
        read_run_config(text)
    except InvalidManifest as error:
        return Verdict(False, str(error))
    return Verdict(True, "")


def run_config(spec: Any) -> Object:
    """Return the configuration of a run with this spec."""
    derived = effective(RFTJobSpec.model_validate(sample(RFTJobSpec), by_alias=True, by_name=False), "uid")
    return {
        "job": {"name": "job", "namespace": "team", "uid": "uid"},
        "spec": spec,
        "effective": derived.dump(),
        "runDir": "/runs/team/job",
        "datasetPath": "/data/train/train.jsonl",
    }


STORED_SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
"""The schema with which an API server validates and stores RFTJobs."""


def _by_schema(manifests: Sequence[Object], by_cel: bool = True) -> list[Verdict]:
    found = [complaints(manifest, STORED_SCHEMA, by_cel) for manifest in manifests]
    return [Verdict(not each, "; ".join(each)) for each in found]


def _by_webhook(manifests: Sequence[Object]) -> list[Verdict]:
    """Return the webhook's verdicts on new jobs. No API server checks the schema before the webhook."""
    answers = [review(admission_review(manifest))["response"] for manifest in manifests]
    return [Verdict(each["allowed"], each.get("status", {}).get("message", "")) for each in answers]


MODEL = Gate("model", _by_model)
# For YAML's .nan and .inf the parser fails, as in kubectl. The message then names the line, not the field.
CLI = Gate("rft validate", _by_cli, frozenset(Sight) - {Sight.NOT_JSON, Sight.FORM})
# A trainer ignores unknown fields, because a newer operator may send them. Another gate has checked the
# user's manifest before.
TRAINER = Gate("trainer's config", _by_trainer, frozenset(Sight) - {Sight.DOCUMENT, Sight.UNKNOWN})
SCHEMA = Gate(
    "CRD's schema",
    _by_schema,
    frozenset({Sight.DOCUMENT, Sight.EMPTY, Sight.FLOAT, Sight.FORM, Sight.FIELD_RULE}),
    LIST_MAP_RULES,
)
OLD_SCHEMA = Gate("CRD's schema without CEL", partial(_by_schema, by_cel=False))
WEBHOOK = Gate("webhook", _by_webhook, frozenset(Sight) - {Sight.FORM})
LOCAL = (MODEL, CLI, TRAINER, SCHEMA, WEBHOOK)


# API servers.


class RestApi(Protocol):
    """An API server, called for one namespace. The namespace replaces ``{}`` in a path."""

    def call(self, method: str, path: str, body: Object | None = None) -> Object:
        """Send one request. Raise ClusterError if the API server refuses it."""


def api_server(
    api: RestApi,
    *,
    name: str = "API server",
    evaluates: frozenset[str] = LIST_MAP_RULES,
    by_cel: bool = False,
    strict: bool = False,
    tells_empty_from_null: bool = False,
    looks_ahead: bool = False,
) -> Gate:
    """Return the gate of a real API server. The gate creates each manifest with ``dryRun=All``.

    - ``evaluates``: the rules across fields that this server checks, by list keys, a webhook or CEL.
    - ``by_cel``: whether the server checks the CEL rules in the CRD. CEL refuses 8.0 for an integer.
    - ``strict``: whether requests have ``fieldValidation=Strict``. With it, servers from 1.25 on refuse
      unknown fields. Without it, they remove unknown fields.
    - ``tells_empty_from_null``: false for Kubernetes 1.20, which treats "" as null.
    - ``looks_ahead``: whether a webhook also refuses manifests whose run would fail later.
    """
    query = "dryRun=All&fieldValidation=Strict" if strict else "dryRun=All"
    path = f"apis/rft.dev/v1alpha1/namespaces/{{}}/rftjobs?{query}"

    def one(manifest: Object) -> Verdict:
        try:
            api.call("POST", path, manifest)
        except ClusterError as error:
            if error.status not in (400, 422):
                raise
            return Verdict(False, str(error))
        return Verdict(True, "")

    def judge(manifests: Sequence[Object]) -> list[Verdict]:
        with ThreadPoolExecutor(_THREADS) as threads:
            return list(threads.map(one, manifests))

    sees = {Sight.DOCUMENT}
    if not looks_ahead:
        sees.add(Sight.FORM)
    # Without CEL a webhook may check the forms of texts: then ``evaluates`` has all rules.
    # With CEL the integer 8.0 is refused. kubectl and Go's clients never write it.
    if by_cel or evaluates == ALL_RULES:
        sees.add(Sight.FIELD_RULE)
    if not by_cel:
        sees.add(Sight.FLOAT)
    if strict:
        sees.add(Sight.UNKNOWN)
    if tells_empty_from_null:
        sees.add(Sight.EMPTY)
    return Gate(name, judge, frozenset(sees), evaluates)


# YAML.


class _Quoted(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """A YAML dumper without anchors. It quotes every text, so that no parser reads a text as a number."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


_Quoted.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, '"'))


def yaml_text(document: Mapping[str, Any]) -> str:
    """Return a manifest as YAML."""
    return yaml.dump(dict(document), Dumper=_Quoted, sort_keys=False, allow_unicode=True, width=10**9)
