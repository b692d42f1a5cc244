"""Writes the model card of an adapter, and writes the base model's name into the adapter's configuration.

The card contains no rows, no texts of graders and no addresses, because these may be private.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rft_api.job import RFTJobSpec
from rft_api.status import EvaluationResult, GraderEvaluation
from rft_run import run_files
from rft_run.config import RunConfig
from rft_run.folder import adapter_config_of, card_of
from rft_run.markdown import code

_NOT_KNOWN = "not known; see the page of the base model"
_POINTS = 20
_LEAST_RANK_OF_VLLM = 8
"""The lowest ``--max-lora-rank`` that the vLLM command in a card has. With this value vLLM also loads
adapters of lower ranks."""
_LICENCE = "- licence of the base: "
_NOT_IN_LICENCES = re.compile(r"[^\w .,:+()/'&-]")
_MAX_LICENCE = 100
_PRIVATE = ("stop",)
"""Sampling parameters that the card leaves out, because they contain the user's own text."""


class Card(NamedTuple):
    """The content of a model card. ``revision`` and ``licence`` of the base model are None if they are not
    known.
    """

    config: RunConfig
    step: int
    """The step after which the run saved the adapter, or 0 if it is not known."""
    revision: str | None = None
    licence: str | None = None
    curve: Sequence[tuple[int, float]] = ()
    """The reward curve of the run: pairs of step and mean reward."""
    evaluation: EvaluationResult | None = None
    merged: bool = False
    """Whether the card describes a merged model, and not an adapter."""


def dress(adapter: Path, card: Card) -> None:
    """Write the base model's name into the configuration of an adapter, and write the model card of the
    adapter.

    Raises OSError, and ValueError if the configuration is not valid.
    """
    file = adapter_config_of(adapter)
    found = run_files.json_of(file)
    if not isinstance(found, dict):
        raise ValueError(f"{file} is no JSON object")
    body = named(found, card.config.spec.model.name, card.revision)
    file.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    card_of(adapter).write_text(render(card), encoding="utf-8")


def named(body: Mapping[str, Any], name: str, revision: str | None) -> dict[str, Any]:
    """Return the adapter's configuration ``body`` with the base model's ``name`` and ``revision``.

    They replace what PEFT wrote, because PEFT may have written a path in the hub's cache.
    """
    return {**body, "base_model_name_or_path": name, "revision": revision}


def licence_of(model: Path) -> str | None:
    """Return the licence in the model card of a model's folder. Return None if the card names no licence."""
    try:
        # ``follow``, because files of the hub's cache are symbolic links.
        text = run_files.text(card_of(model), run_files.STATUS_BYTES, follow=True)
        _, front, _ = text.split("---", 2)
        found = run_files.yaml_value(front)
        licence = found.get("license_name") or found.get("license")
    except (OSError, ValueError, AttributeError):
        return None
    # Anybody may have written the card. So only characters that the names of licences need are kept.
    if not isinstance(licence, str):
        return None
    return " ".join(_NOT_IN_LICENCES.sub("", " ".join(licence.split())).split())[:_MAX_LICENCE]


def licence_said(adapter: Path) -> str | None:
    """Return the base model's licence from the model card of an adapter. Return None if the card names no
    licence.
    """
    try:
        lines = run_files.text(card_of(adapter)).splitlines()
    except (OSError, ValueError):
        return None
    said = next((line.removeprefix(_LICENCE) for line in lines if line.startswith(_LICENCE)), None)
    return said if said != _NOT_KNOWN else None


def render(card: Card) -> str:
    """Return the model card as Markdown."""
    parts = (_front(card), _heading(card), _curve(card), _evaluation(card), _parameters(card), _loading(card))
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part))) + "\n"


def _front(card: Card) -> Iterator[str]:
    yield "---"
    if not card.config.spec.model.name.startswith(("/", ".", "~")):
        yield f"base_model: {json.dumps(card.config.spec.model.name)}"
    yield f"library_name: {'transformers' if card.merged else 'peft'}"
    yield "tags: [lora, reinforcement-fine-tuning]"
    yield "---"


def _heading(card: Card) -> Iterator[str]:
    spec = card.config.spec
    kind = "A model with a LoRA adapter merged into it" if card.merged else "A LoRA adapter"
    yield f"# {card.config.job.name}" + (f", step {card.step}" if card.step else "")
    yield ""
    yield (
        f"{kind}, trained by reinforcement learning with {spec.training.objective} to raise the scores of"
        f" these graders: {', '.join(grader.name for grader in spec.scored_by)}."
    )
    yield ""
    revision = f", revision {code(card.revision)}" if card.revision else ""
    yield f"- base model: {code(spec.model.name)}{revision}"
    yield f"{_LICENCE}{card.licence or _NOT_KNOWN}"


def _curve(card: Card) -> Iterator[str]:
    points = [point for point in card.curve if point[0] <= card.step]
    if not points:
        return
    yield "## Reward"
    yield ""
    last = len(points) - 1
    chosen = sorted({last * index // (_POINTS - 1) for index in range(_POINTS)})
    yield from _table(("step", "mean reward"), [(str(points[i][0]), f"{points[i][1]:.3f}") for i in chosen])


def _evaluation(card: Card) -> Iterator[str]:
    rows = _evaluated(card.evaluation, card.step) if card.evaluation is not None else []
    if not rows or card.evaluation is None:
        return
    yield "## Held-out evaluation"
    yield ""
    yield f"{card.evaluation.rows} rows that were not trained on."
    if card.evaluation.selected:
        yield (
            "The best checkpoint was chosen among several by its reward on these rows, so this reward is"
            " probably too high."
        )
    yield ""
    yield from _table(("score", "base", "tuned", "difference", "95 % interval"), rows)


def _evaluated(result: EvaluationResult, step: int) -> list[tuple[str, ...]]:
    """Return the rows of the model card's table of scores, for the checkpoint of ``step``.

    There is a row for the reward, and one for each grader if ``result`` has the scores of the graders for
    this step. Return an empty list if this checkpoint was not evaluated.
    """
    if result.step == step and result.reward is not None and result.reward.tuned is not None:
        return [
            _scores("reward", result.reward),
            *(_scores(*pair) for pair in (result.graders or {}).items()),
        ]
    if result.best is not None and result.best.step == step:
        return [_scores("reward", result.best.reward)]
    return []


def _scores(name: str, scores: GraderEvaluation) -> tuple[str, ...]:
    found = scores.difference
    return (
        name,
        f"{scores.base:.3f}",
        "-" if scores.tuned is None else f"{scores.tuned:.3f}",
        "-" if found is None else f"{found.mean:+.3f}",
        "-" if found is None else f"{found.low:+.3f} to {found.high:+.3f}",
    )


def _parameters(card: Card) -> Iterator[str]:
    yield "## Parameters"
    yield ""
    yield from _table(("parameter", "value"), list(_values(card.config.spec, card.config.effective.dump())))


def _values(spec: RFTJobSpec, effective: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for part, values in (
        ("training", {**spec.training.dump(), **effective}),
        ("sampling", spec.sampling.dump()),
    ):
        for name, value in values.items():
            if name not in _PRIVATE:
                yield f"{part}.{name}", json.dumps(value).strip('"')
    for grader in spec.scored_by:
        yield f"graders.{grader.name}", f"{grader.kind}, weight {grader.weight:g}"


def _loading(card: Card) -> Iterator[str]:
    name, job = card.config.spec.model.name, card.config.job.name
    rank = max(card.config.spec.training.lora_rank, _LEAST_RANK_OF_VLLM)
    option = f" --revision {shlex.quote(card.revision)}" if card.revision else ""
    yield "## How to load it"
    yield ""
    if card.merged:
        yield "`MODEL` is the path of this folder; PEFT is not needed:"
        yield ""
        yield "```sh"
        yield f"vllm serve MODEL --served-model-name {job}"
        yield "```"
        return
    yield "`ADAPTER` is the path of this folder. With PEFT:"
    yield ""
    yield "```python"
    yield from peft_lines(name, card.revision, "ADAPTER")
    yield "```"
    yield ""
    yield "With vLLM, whose command line names the base model:"
    yield ""
    yield "```sh"
    lora = f"--enable-lora --max-lora-rank {rank} --lora-modules {job}=ADAPTER"
    yield f"vllm serve {shlex.quote(name)}{option} {lora}"
    yield "```"


def peft_lines(
    base: str, base_revision: str | None, adapter: str, revision: str | None = None
) -> Iterator[str]:
    """Yield the lines of Python that load an adapter with PEFT.

    ``adapter`` is the path of the adapter's folder, or its repository on the hub. ``revision`` is the branch
    of this repository.
    """
    yield "from peft import PeftModel"
    yield "from transformers import AutoModelForCausalLM"
    yield ""
    yield f"base = AutoModelForCausalLM.from_pretrained({json.dumps(base)}{_revision(base_revision)})"
    yield f"model = PeftModel.from_pretrained(base, {json.dumps(adapter)}{_revision(revision)})"


def _revision(revision: str | None) -> str:
    return f", revision={json.dumps(revision)}" if revision else ""


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (heading, ["---"] * len(heading), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
