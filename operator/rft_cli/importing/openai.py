"""Converts a fine-tuning job of OpenAI, or a single grader, to an RFTJob. The input is JSON, as OpenAI's API
accepts or returns it.
"""

import json
from collections.abc import Mapping
from typing import Any

from rft_api import fields
from rft_api.ahead import model_problem
from rft_api.cel import words
from rft_cli.importing import openai_graders
from rft_cli.importing.result import DIGITS, Draft, ImportProblem, Options, label, put, rows_of

JUDGE_NOTE = (
    "in the cluster, the judge's API key is read from the Secret judge, key api-key; for a local run, put the"
    " API key into the environment variable RFT_SECRET_{}_API_KEY, and call rft run with --send-token-to {}"
)
_OF_A_RESULT = words(
    "object id created_at finished_at fine_tuned_model organization_id result_files status trained_tokens"
    " error user_provided_suffix estimated_finish type shared_with_openai checkpoint_permission"
    " usage_metrics"
)
"""Fields that OpenAI adds to a job, such as its status. They do not describe the training."""
_SCALED = {
    "learning_rate_multiplier": "spec.training.learningRate",
    "compute_multiplier": "spec.sampling.numRollouts",
}


def is_job(body: Mapping[str, Any]) -> bool:
    """Return whether a JSON object has the fields of an OpenAI fine-tuning job, with any training method."""
    method = body.get("method")
    return isinstance(method, dict) or "training_file" in body


def read(body: Mapping[str, Any], options: Options) -> Draft:
    """Convert ``body``, a job or a single grader of OpenAI, to an RFTJob. Return its draft: manifest, files
    and notes.

    Raises:
        ImportProblem: if the job's method is not reinforcement, or an RFTJob cannot express the job.
    """
    draft = Draft("openai")
    if openai_graders.is_grader(body):
        openai_graders.add(draft, body, options)
    else:
        _read_job(draft, body, options)
    _add_sources(draft, body, options)
    _say_tokens(draft, options)
    return draft


def _read_job(draft: Draft, body: Mapping[str, Any], options: Options) -> None:
    method = _object(body, "method")
    if method.get("type") != "reinforcement":
        raise ImportProblem(
            f"method.type is {method.get('type', 'supervised')!r}; only a job with method.type"
            " 'reinforcement' has graders to import"
        )
    inner = _object(method, "reinforcement", "method.")
    grader = inner.get("grader")
    if not isinstance(grader, dict):
        raise ImportProblem("method.reinforcement.grader is missing; a reinforcement job needs its grader")
    openai_graders.add(draft, grader, options)
    if inner.get("response_format") is not None:
        _add_format(draft, inner["response_format"])
    hyper = {
        **_object(body, "hyperparameters"),
        **_object(inner, "hyperparameters", "method.reinforcement."),
    }
    for name, value in hyper.items():
        if value is not None and value != "auto":
            _carry_number(draft, name, value)
    draft.name = label(str(body.get("suffix") or body.get("user_provided_suffix") or "")) or draft.name
    for name, value in body.items():
        _carry_rest(draft, name, value)


def _object(body: Mapping[str, Any], name: str, place: str = "") -> dict[str, Any]:
    """Return the JSON object in the field ``name`` of ``body``, or {} if the field is absent or null.

    ``place`` is the path of ``body`` for messages, such as ``method.``. Raises ImportProblem if the field has
    any other value.
    """
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise ImportProblem(f"{place}{name} is {json.dumps(value)}, not an object")
    return value or {}


def _carry_rest(draft: Draft, name: str, value: Any) -> None:
    handled = {"method", "hyperparameters", "suffix", "model", "training_file", "validation_file"}
    if value is None or value in ([], {}) or name in _OF_A_RESULT or name in handled:
        return
    if name == "integrations":
        _add_tracking(draft, value)
    else:
        draft.carry(name, value)


def _carry_number(draft: Draft, name: str, value: Any) -> None:
    path = _SCALED.get(name)
    if path is None or isinstance(value, bool) or not isinstance(value, int | float):
        draft.carry(name, value)
        return
    default = fields.find(path).default
    if not abs(value) < 1e300:  # it cannot be multiplied, or is not a number
        draft.carry(name, value)
        return
    scaled = float(f"{value * default:.{DIGITS}g}")
    draft.set(path, scaled, f"{name} {value:g} (times {default:g})")


def _add_format(draft: Draft, body: Any) -> None:
    schema = openai_graders.response_schema(body)
    kind = body.get("type") if isinstance(body, dict) else body
    if schema is None:
        draft.note("response_format", kind, "no counterpart: describe the form of the answer in the prompts")
        return
    name = draft.unique_name("response-format")
    draft.graders.append({"name": name, "weight": 0, "jsonSchema": {"schema": schema}})
    draft.note(
        "response_format",
        kind,
        f"the model is not forced into this form: the grader {name} checks the form, with weight 0; to train"
        " the form, raise the weight of this grader",
    )


_WANDB_LOST = {
    "name": "no counterpart: the run in W&B has the job's name",
    "tags": "no counterpart: the run in W&B has no tags",
}


def _add_tracking(draft: Draft, integrations: Any) -> None:
    for each in integrations if isinstance(integrations, list) else []:
        wandb = each.get("wandb") if isinstance(each, dict) else None
        if not isinstance(wandb, dict) or not wandb.get("project"):
            draft.note("integrations", each, "no counterpart: see spec.tracking")
            continue
        found = {key: wandb[key] for key in ("project", "entity") if wandb.get(key)}
        put(draft.spec, "tracking.wandb", {**found, "secretRef": {"name": "wandb", "key": "api-key"}})
        for key, done in _WANDB_LOST.items():
            if wandb.get(key):
                draft.note(f"wandb.{key}", wandb[key], done)
        draft.note("integrations", "wandb", "the API key of W&B is read from the Secret wandb, key api-key")


def _add_sources(draft: Draft, body: Mapping[str, Any], options: Options) -> None:
    """Set the model and the datasets of the draft, from the options and from ``body``, the imported job or
    grader.

    The datasets come from the options only, because the ids of files at OpenAI cannot be read here. Raises
    ImportProblem if there is no model that can be trained.
    """
    name = options.model or body.get("model") if not openai_graders.is_grader(body) else options.model
    if not isinstance(name, str) or model_problem(name):
        given = f"model {name!r} is closed, or is no hub id" if name else "a grader names no model to train"
        raise ImportProblem(
            f"{given}; add --model with an open one, such as --model Qwen/Qwen2.5-7B-Instruct"
        )
    if options.model and isinstance(body.get("model"), str) and not openai_graders.is_grader(body):
        draft.note("model", body["model"], f"{options.model} is trained instead")
    draft.spec["model"] = {"name": name}
    add_rows(draft, body.get("training_file"), "training_file", options.rows)
    if options.evaluation_rows is not None:
        draft.spec["evaluation"] = {
            **draft.spec.get("evaluation", {}),
            "dataset": rows_of(options.evaluation_rows),
        }
    elif body.get("validation_file"):
        done = (
            "is not used: a part of the training rows is held out instead; to use this dataset, import again"
            " with --evaluation-rows FILE"
        )
        draft.note("validation_file", body["validation_file"], done)


def add_rows(draft: Draft, theirs: object, field: str, rows: str | None) -> None:
    """Set the dataset of the draft to ``rows``, a file of rows for training.

    If ``rows`` is None, set the dataset to ``./rows.jsonl``, and add a note that asks for this file. The note
    names the dataset of the imported job: ``field`` is its field there, and ``theirs`` the field's value.
    """
    draft.spec["dataset"] = rows_of(rows or "./rows.jsonl")
    if rows is None:
        given = theirs if theirs is not None else "is not set"
        done = (
            "spec.dataset names rows.jsonl in the manifest's folder: put your rows there, or import again"
            " with --rows FILE"
        )
        draft.note(field, given, done)


def _say_tokens(draft: Draft, options: Options) -> None:
    host = options.judge_url.split("//")[-1].split("/")[0]
    for grader in draft.graders:
        if "model" in grader:
            name = str(grader["name"]).upper().replace("-", "_")
            draft.note(f"{grader['name']}.model", "", JUDGE_NOTE.format(name, host))
