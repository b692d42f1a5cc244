"""A whole run of a tiny model, with rewards from nine kinds of graders."""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rft_api.effective import effective
from rft_api.graders import GRADER_KINDS
from rft_api.job import RFTJobSpec
from rft_run.config import JobIdentity, RunConfig
from rft_run.rollouts import read_rollouts
from rft_trainer.loop import Run
from rft_trainer.monitors.progress import Events
from rft_trainer.monitors.report import Reporter
from rft_trainer.runtime import machine
from tests.trainer.grader_service import Answer, Asked, Service, serving

STEPS = 1


def respond(asked: Asked) -> Answer:
    """Answer a request to a grading service, or to the model of a judge.

    The service scores an item by the length of its completion. For the first item of each request it reports
    an error. The judge's model gives a score, but not if the completion begins with a digit from 0 to 4.
    """
    if "items" in asked.body:
        scores = [{"id": one["id"], "score": len(one["completion"]) / 100} for one in asked.body["items"]]
        return Answer({"scores": [{"id": 0, "error": "not this one"}, *scores[1:]]})
    *_, said = asked.body["messages"][0]["content"].partition("|")
    text = "Hard to say." if said[:1] in {*"01234"} else '{"score": 5}'
    return Answer({"choices": [{"message": {"content": text}}]})


def config(model: Path, folder: Path, web: Service) -> RunConfig:
    rows = [
        {"messages": [{"role": "user", "content": f"{a}+{b}"}], "answer": str(a)}
        for a in range(10)
        for b in range(7)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    kinds: dict[str, dict[str, Any]] = {
        "exactMatch": {},
        "numeric": {},
        "math": {},
        "regex": {"pattern": "[0-9]"},
        "jsonSchema": {"schema": '{"type": "integer"}'},
        "textSimilarity": {},
        "python": {"inline": "def grade(completion, row): return len(set(completion)) / 100"},
        "http": {"url": web.url},
        "model": {"url": web.url, "model": "judge", "prompt": "{prompt} {answer}|{completion}"},
        "stringCheck": {"operation": "contains", "reference": "{answer}"},
        "formula": {"expression": "max(stringcheck, regex) * python"},
    }
    more: dict[str, dict[str, Any]] = {
        "http": {"onError": "zero"},
        "model": {"onError": "zero", "scale": {"min": 0, "max": 10}},
    }
    graders = [{"name": kind.lower(), kind: kinds[kind], **more.get(kind, {})} for kind in kinds]
    spec = RFTJobSpec.model_validate(
        {
            "model": {"name": str(model)},
            "dataset": {"uri": "./rows.jsonl"},
            "graders": graders,
            "training": {"batchSizeTokens": 1024, "seed": 3},
            "sampling": {"engine": "transformers", "maxTokens": 16, "temperature": 1.0, "numRollouts": 4},
            "stop": {"maxSteps": STEPS},
            "preflight": "off",
            "storage": {"ephemeral": {}},
        }
    )
    return RunConfig(
        job=JobIdentity(name="tiny", namespace="default", uid="uid"),
        spec=spec,
        effective=effective(spec, "uid", 128),
        run_dir=str(folder),
        dataset_path=str(folder / "rows.jsonl"),
    )


def test_a_run_with_every_kind_of_grader_reports_each_mean_and_counts_each_error(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    with serving(respond) as web:
        asked = config(character_model, tmp_path, web)
        with Reporter(asked) as reporter:
            run = Run(asked, reporter, Events(io.StringIO()), lambda: False)
            run.train()
    rollouts = [
        rollout for file in (tmp_path / "rollouts").glob("step-*.zst") for rollout in read_rollouts(file)
    ]
    counted = Counter(name for rollout in rollouts for name in rollout.errors)
    usage = run.monitors.snapshot().usage
    assert usage is not None
    assert usage.grader_errors == counted
    for rollout in rollouts:
        named = rollout.completion[:1] not in {*"01234"}
        assert rollout.graders["model"] == (0.5 if named else 0.0)
        assert set(rollout.graders) == {grader.name for grader in asked.spec.graders}
        assert rollout.reward == pytest.approx(
            sum(filter(None, rollout.graders.values())) / len(GRADER_KINDS)
        )
    assert counted["http"] >= STEPS
    assert 0 < counted["model"] < len(rollouts)
    assert set(counted) == {"http", "model"}
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [set(row["graders"]) for row in rows] == [{grader.name for grader in asked.spec.graders}] * STEPS
