"""rft validate finds errors that would make the job fail later: in graders, names, quantities and rows.

The command never runs users' code.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rft_api import ahead
from rft_api.job import RFTJobSpec
from rft_cli.main import app
from rft_graders.ahead import code_problem, pattern_problem, schema_problem, template_problem
from rft_operator.webhook.review import judge

SPEC: dict[str, Any] = {
    "model": {"name": "Qwen/Qwen2.5-0.5B-Instruct"},
    "dataset": {"configMap": {"name": "rows"}},
    "graders": [{"name": "right", "numeric": {}}],
    "storage": {"claimTemplate": {"size": "5Gi"}},
}


def job(**fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": "rft.dev/v1alpha1",
        "kind": "RFTJob",
        "metadata": {"name": "job"},
        "spec": {**SPEC, **fields},
    }


def found(**fields: Any) -> list[str]:
    return list(map(str, ahead.problems(RFTJobSpec.model_validate({**SPEC, **fields}, by_alias=True))))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def grade(completion, row): return 1", ""),
        ("def grade(a, b, c=1, *, d=2, **e): return 1", ""),
        ("def grade(row): return 1", ""),
        ("def grade(sample, item): return 1", ""),
        ("def grade(prompts, completions, answer, **kwargs): return [1]", ""),
        ("async def grade(completion, row): return 1", ""),
        ("grade = lambda c, r: 1", ""),
        ("from x import score as grade", ""),
        ("from x import *", ""),
        ("def f():\n    global grade\n    def grade(c, r): return 1\nf()", ""),
        ("exec('def grade(a, b): pass')", ""),
        ("try:\n    def grade(a, b): return 1\nexcept Exception: pass", ""),
        ("class grade:\n    def __new__(cls, a, b): return 1", ""),
        ("@wrapped\ndef grade(): return 1", ""),
        ("\ufeffdef grade(completion, row): return 1", ""),
        ("def grade(completion, row) return 1", "the source is not valid Python (line 1)"),
        ("def grade(completion, row):\nreturn 1", "the source is not valid Python (line 2)"),
        ("def score(c, r): return 1", "defines no function grade; it defines score: write function: score"),
        ("class A:\n    def grade(self, c, r): return 1", "defines no function grade"),
        ("def f():\n    def grade(c, r): return 1", "defines no function grade"),
        ("x", "defines no function grade"),
        ("def grade(completion): return 1", ""),
        ("def grade(messages, answer): return 1", ""),
        ("def grade(answer): return 1", "grade(answer) cannot be called as a grader"),
        ("def grade(a, b, c): return 1", ""),
        ("def grade(row, answer): return 1", "grade(row, answer) cannot be called as a grader"),
        ("def grade(sample, *, c): return 1", "every other parameter needs a default"),
        ("def grade(): return 1", "grade() cannot be called as a grader"),
    ],
)
def test_code_is_parsed_and_its_function_must_take_what_it_is_given(source: str, said: str) -> None:
    problem = code_problem(source, "grade")
    assert said in problem if said else problem == ""


def test_code_is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    assert code_problem(f"open({str(mark)!r}, 'w')\ndef grade(c, r): return 1", "grade") == ""
    assert not mark.exists()


def test_patterns_schemas_and_templates_are_checked() -> None:
    assert pattern_problem(r"\d+ \+ \d+") == ""
    assert "not a valid Python regular expression" in pattern_problem("(")
    assert "a backspace" in pattern_problem("\bword\b")
    assert schema_problem('{"type": "object"}') == ""
    assert "not JSON" in schema_problem("{type: object}")
    assert "/type" in schema_problem('{"type": "objekt"}')
    assert template_problem("Score {completion} for {prompt}") == ""
    assert "{completion}" in template_problem("Score it")
    assert "braces" in template_problem('Answer {"score": 1} for {completion}')


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", True), ("gpt2", True), ("a_/b_", True), ("openai/gpt-oss-20b", True),
        ("/models/own", True),
                ("xai-org/grok-1", True), ("someone/claude-style-lora", True), ("google/gemma-3-1b-it", True),
        ("gpt-4o", False), ("openai/gpt-4o-mini", False), ("gpt-5", False), ("o3-mini", False), ("o1", False),
        ("claude-3-5-sonnet-latest", False), ("anthropic/claude-opus-4", False), ("gemini-2.5-pro", False),
        ("google/gemini-2.5-flash", False), ("./models/own", False), ("a/b/c", False), ("llama3:8b", False),
        ("my model", False), ("https://huggingface.co/Qwen/Qwen2.5-7B", False), ("~/models/own", False),
    ],
)  # fmt: skip
def test_a_model_is_a_hub_id_with_weights_or_an_absolute_path(name: str, is_one: bool) -> None:
    assert bool(found(model={"name": name})) is not is_one


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": {"name": "a/b", "revision": "7ae557604adf"}}, "shortened commit of 12 characters"),
        ({"resources": {"memory": "512m"}}, "write 512Mi"),
        ({"resources": {"shm": "1m"}}, "spec.resources.shm"),
        ({"resources": {"ephemeralStorage": "10m"}}, "write 10Mi"),
        ({"resources": {"accelerator": {"memory": "80m"}}}, "spec.resources.accelerator.memory"),
        ({"template": {"labels": {"team": "my team"}}}, "write 'my-team'"),
        ({"template": {"labels": {"a b": "x"}}}, "write a-b"),
        (
            {"template": {"annotations": {"Example.com/a": "any text at all"}}},
            "not a domain such as example.com",
        ),
        ({"resources": {"nodeSelector": {"a": "ü"}}}, "spec.resources.nodeSelector.a"),
        ({"template": {"volumes": [{"name": "m", "mountPath": "/a:b", "configMap": "c"}]}}, "colon"),
        ({"template": {"volumes": [{"name": "m", "mountPath": "/runs/", "configMap": "c"}]}}, "/mnt/m"),
        ({"template": {"volumes": [{"name": "m", "mountPath": "/m", "configMap": "C_1"}]}}, "write c-1"),
        ({"dataset": {"configMap": {"name": "My Rows"}}}, "write my-rows"),
        ({"template": {"runtimeClassName": "GVisor"}}, "write gvisor"),
        (
            {
                "template": {
                    "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "My_Map", "key": "k"}}}]
                }
            },
            "write my-map",
        ),
        ({"template": {"env": [{"name": "RFT_POD_UID", "value": "x"}]}}, "spec.template.env[0].name"),
        ({"template": {"env": [{"name": "HOME", "value": "/x"}]}}, "HOME is set by the operator"),
        ({"template": {"env": [{"name": "RFT_MINE", "value": "x"}]}}, "write MINE"),
        (
            {
                "model": {"name": "a/b", "secretRef": {"name": "hub", "key": "token"}},
                "template": {"env": [{"name": "HF_TOKEN", "value": "x"}]},
            },
            "HF_TOKEN is set by spec.model.secretRef, so its value has no effect",
        ),
        (
            {
                "model": {"name": "a/b", "cache": {"persistentVolumeClaim": {"claimName": "models"}}},
                "template": {"env": [{"name": "HF_HUB_CACHE", "value": "/x"}]},
            },
            "HF_HUB_CACHE is set by spec.model.cache",
        ),
        (
            {
                "tracking": {"wandb": {"project": "p", "secretRef": {"name": "wandb", "key": "key"}}},
                "template": {"env": [{"name": "WANDB_API_KEY", "value": "x"}]},
            },
            "WANDB_API_KEY is set by spec.tracking.wandb.secretRef",
        ),
    ],
)
def test_what_kubernetes_or_the_hub_does_not_take_is_said(fields: dict[str, Any], said: str) -> None:
    (problem,) = found(**fields)
    assert said in problem


@pytest.mark.parametrize(
    ("name", "proposal"),
    [
        ("a/b/c", "write b/c"),
        ("owner/my--model", "write owner/my-model"),
        ("hub.example.com/owner/my model", "write owner/my-model"),
        ("a..b/c", "write a.b/c"),
        ("my--model", "such as owner/my-model"),
        ("///", "an absolute path"),
        ("ä/ö", "such as owner/name"),
    ],
)
def test_the_proposed_model_is_valid(name: str, proposal: str) -> None:
    problems = found(model={"name": name})
    if name.startswith("/"):
        assert problems == []
        return
    assert proposal in problems[0]
    assert name not in problems[0].partition("write ")[2]


@pytest.mark.parametrize("name", ["a..b", "-a-.-b-", "A_" * 200, "a." * 200, "Ü", "x" * 300, ".-."])
def test_the_proposed_name_of_an_object_is_valid(name: str) -> None:
    (problem,) = found(dataset={"configMap": {"name": name}})
    _, wrote, proposal = problem.partition("; write ")
    assert (
        found(dataset={"configMap": {"name": proposal}}) == [] if wrote else not re.search("[a-z0-9]", name)
    )


def test_what_they_take_is_left_alone() -> None:
    assert found(
        model={"name": "a/b", "revision": "main"},
        resources={"cpu": "500m", "memory": "16Gi", "nodeSelector": {"example.com/gpu": ""}},
        template={
            "labels": {"team": "a_b.c"},
            "annotations": {"example.com/note": "any text, at all"},
            "env": [
                {"name": "RFT_DEVICE", "value": "cpu"},
                {"name": "RFT_CPU_DTYPE", "value": "float32"},
                {"name": "RFT_ATTENTION", "value": "dense"},
                {"name": "WANDB_MODE", "value": "offline"},
            ],
        },
    ) == []  # fmt: skip


def rows(count: int, *, same: bool = False) -> str:
    texts = [f"What is {0 if same else i}?" for i in range(count)]
    return "".join(
        json.dumps({"messages": [{"role": "user", "content": t}], "answer": 1}) + "\n" for t in texts
    )


def validated(
    tmp_path: Path, document: dict[str, Any], data: dict[str, str] | None = None
) -> tuple[int, str]:
    documents = [document]
    if data is not None:
        documents.append(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows"}, "data": data}
        )
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    result = CliRunner().invoke(app, ["validate", str(path)])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"train.jsonl": rows(64)}, ""),
        ({"train.jsonl": rows(63)}, "63 distinct prompts are fewer than 64"),
        ({"train.jsonl": rows(100, same=True)}, "1 distinct prompts"),
        ({"train.jsonl": rows(1) + "{\n"}, "line 2: not JSON"),
        ({"train.jsonl": '{"prompt": "x"}\n'}, "1 distinct prompts are fewer than 64"),
        ({"train.jsonl": '{"text": "x"}\n'}, "neither messages nor prompt"),
        ({"train.jsonl": ""}, "0 distinct prompts"),
        ({"other.jsonl": rows(64)}, "has no 'train.jsonl'; it has other.jsonl"),
        (
            {"train.jsonl": rows(62) + rows(65).replace("answer", "gold")},
            "line 63: field answer is missing (grader right); line 64: field answer is missing",
        ),
        (
            {"train.jsonl": rows(62) + rows(65).replace("answer", "gold")},
            "; 62 more. The fields of the rows are: answer, gold",
        ),
        ({"train.jsonl": rows(64).replace(": 1}", ": [1]}")}, "but grader right needs text or a number"),
        (None, ""),
    ],
)
def test_rows_of_a_config_map_in_the_same_file_are_counted(
    tmp_path: Path, data: dict[str, str] | None, said: str
) -> None:
    code, output = validated(tmp_path, job(), data)
    assert code == (1 if said else 0), output
    assert said in output


def test_a_local_file_must_exist_and_is_found_beside_the_manifest(tmp_path: Path) -> None:
    local = job(dataset={"uri": "./train.jsonl"})
    code, output = validated(tmp_path, local)
    assert code == 1
    assert "spec.dataset: " in output
    (tmp_path / "train.jsonl").write_text(rows(64))
    assert validated(tmp_path, local)[0] == 0


def test_a_small_evaluation_of_its_own_is_taken_and_its_consequence_named(tmp_path: Path) -> None:
    (tmp_path / "few.jsonl").write_text(rows(5))
    own = job(evaluation={"dataset": {"uri": "./few.jsonl"}})
    code, output = validated(tmp_path, own, {"train.jsonl": rows(3)})
    assert code == 0, output
    assert "warning: spec.evaluation.dataset: 5 distinct prompts give a wide confidence interval" in output


def test_code_of_a_config_map_in_the_same_file_is_checked(tmp_path: Path) -> None:
    graders = [{"name": "own", "python": {"configMap": {"name": "rows"}}}]
    _, output = validated(
        tmp_path, job(graders=graders), {"train.jsonl": rows(64), "grader.py": "def x(): 1"}
    )
    assert "spec.graders[0].python: the source defines no function grade; it defines x" in output
    _, output = validated(tmp_path, job(graders=graders), {"train.jsonl": rows(64)})
    assert "spec.graders[0].python.configMap.key" in output


@pytest.mark.parametrize(
    ("code", "warns"),
    [
        ("def grade(completion, answer=None): return 1", True),
        ("def grade(completion, row, *, answer=0): return 1", True),
        ("def grade(completion, question, answer=0): return 1", True),
        ("def grade(completion, answer): return 1", False),
        ("def grade(completion, strict=True): return 1", False),
        ("def grade(completions, answer=None, **fields): return [1]", False),
        ("def grade(text, row=None): return 1", False),
    ],
)
@pytest.mark.parametrize("inline", [True, False])
def test_a_default_that_hides_a_field_of_the_row_is_a_warning(
    tmp_path: Path, code: str, warns: bool, inline: bool
) -> None:
    python = {"inline": code} if inline else {"configMap": {"name": "rows"}}
    job_ = job(graders=[{"name": "own", "python": python}])
    exit_code, output = validated(tmp_path, job_, {"train.jsonl": rows(64), "grader.py": code})
    assert exit_code == 0, output
    said = "the parameter answer of grade has a default, so it does not get the field answer of the row"
    assert (said in " ".join(output.split())) is warns


@pytest.mark.parametrize(
    ("code", "warns"),
    [
        ("def grade(completion, anwser): return 1", True),
        ("def grade(completion, answer): return 1", False),
        ("def grade(text, example): return 1", False),
        ("def grade(completion, row): return 1", False),
        ("def grade(sample, item): return 1", False),
    ],
)
def test_a_parameter_that_is_nearly_a_field_of_the_row_is_a_warning(
    tmp_path: Path, code: str, warns: bool
) -> None:
    job_ = job(graders=[{"name": "own", "python": {"inline": code}}])
    exit_code, output = validated(tmp_path, job_, {"train.jsonl": rows(64)})
    assert exit_code == 0, output
    said = "gets the whole row, because the rows have no field anwser; did you mean answer?"
    assert (said in " ".join(output.split())) is warns


@pytest.mark.parametrize("wrong", [{"metadata": "x"}, {"data": ["x"]}, {"binaryData": 5}])
def test_a_config_map_of_a_wrong_form_is_one_line(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = tmp_path / "job.yaml"
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows"}, **wrong}
    path.write_text(yaml.safe_dump_all([job(), config_map]))
    result = CliRunner().invoke(app, ["validate", str(path)])
    assert (result.exit_code, "of a ConfigMap is not an object" in result.output) == (2, True), result.output


def test_fields_beside_the_spec_are_named_before_the_problems_of_the_spec(tmp_path: Path) -> None:
    body = {**job(), "storage": {"ephemeral": {}}}
    body["spec"] = {key: value for key, value in body["spec"].items() if key != "storage"}
    body["metadata"] = {"name": "job", "lables": {}, "foo": "bar"}
    code, output = validated(tmp_path, body)
    assert code == 1
    places = [
        output.index(said)
        for said in (
            "did you mean spec.storage?",
            "metadata.foo: no such field of an object in Kubernetes; set it in labels or annotations",
            "metadata.lables: no such field of an object in Kubernetes; did you mean metadata.labels?",
            "spec.storage: is required",
            "for rft run, which needs no storage, check with --local",
        )
    ]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("sampling", "did you mean spec.sampling?"),
        ("loraRank", "did you mean spec.training.loraRank?"),
        ("metdata", "did you mean metadata?"),
        ("foo", "the fields here are apiVersion, kind, metadata, spec, status"),
    ],
)
def test_a_field_beside_the_spec_is_not_dropped_in_silence(tmp_path: Path, key: str, advice: str) -> None:
    code, output = validated(tmp_path, {**job(), key: {}})
    assert code == 1
    assert advice in output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no RFTJob: it is empty"),
        ("apiVersion: v1\nkind: ConfigMap\n", "has no RFTJob, only ConfigMap"),
        ("model: {name: m}\ngraders: []\n", "its fields are those of a spec"),
    ],
)
def test_a_file_without_a_job_is_exit_code_1_and_says_what_it_holds(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    result = CliRunner().invoke(app, ["validate", str(path)])
    assert result.exit_code == 1
    assert said in result.output


def test_the_webhook_refuses_it_in_a_new_job_and_leaves_stored_ones_alone() -> None:
    wrong = job(graders=[{"name": "own", "python": {"inline": "def grade(a): return 1"}}])
    assert [problem.path for problem in judge(wrong, None).problems] == ["spec.graders[0].python"]
    assert judge({**wrong, "spec": {**wrong["spec"], "suspend": True}}, wrong).problems == ()


def test_without_the_library_a_schema_is_still_read_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rft_graders.json_schema", None)
    assert "not JSON" in schema_problem("{type: object}")
    assert schema_problem('{"type": "objekt"}') == ""
