"""A rule of advice applies just beyond its limit, but not at the limit."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rft_advice import RULES, RUN_RULES, AdviceRule, RunRule, advise
from rft_advice.thinking import thinks
from rft_api.fields import find
from rft_api.loader import load_file
from rft_api.validation import check, parse
from rft_codegen.advice_doc import advice_markdown, rules_by_heading
from tests.manifests import manifest

ROOT = Path(__file__).parents[2]
ALL: tuple[AdviceRule | RunRule, ...] = (*RULES, *RUN_RULES)
CLAIM = {"storage": {"claimTemplate": {"size": "5Gi"}}}

GAME = {"python": {"inline": "x"}, "maxTurns": 8}

# For each rule: a spec to which it applies, and a spec at its limit, to which it does not.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "learning-rate-high": (
        {"training": {"learningRate": 2.01e-4}},
        {"training": {"learningRate": 2e-4}},
    ),
    "learning-rate-low": ({"training": {"learningRate": 4.9e-5}}, {"training": {"learningRate": 5e-5}}),
    "epochs-many": ({"training": {"epochs": 4}}, {"training": {"epochs": 3}}),
    "lora-rank-low": ({"training": {"loraRank": 4}}, {"training": {"loraRank": 8}}),
    "lora-rank-high": ({"training": {"loraRank": 32}}, {"training": {"loraRank": 16}}),
    "lora-rank-high-for-small-model": (
        {"training": {"loraRank": 32}, "model": {"name": "org/Some-12B-Instruct"}},
        {"training": {"loraRank": 32}, "model": {"name": "org/Some-13B-Instruct"}},
    ),
    "lora-rank-low-for-large-model": (
        {"training": {"loraRank": 4}, "model": {"name": "org/some", "parameters": "70B"}},
        {"training": {"loraRank": 4}, "model": {"name": "org/some", "parameters": "69B"}},
    ),
    "batch-size-small": (
        {"training": {"batchSizeTokens": 8191, "maxContextLength": 128}, "sampling": {"maxTokens": 64}},
        {"training": {"batchSizeTokens": 8192, "maxContextLength": 128}, "sampling": {"maxTokens": 64}},
    ),
    "batch-size-large": (
        {"training": {"batchSizeTokens": 131073}},
        {"training": {"batchSizeTokens": 131072}},
    ),
    "batch-size-below-one-group": (
        {"training": {"batchSizeTokens": 16383}},
        {"training": {"batchSizeTokens": 16384}},
    ),
    "turns-fill-context": (
        {"environment": GAME, "training": {"maxContextLength": 4096}, "sampling": {"maxTokens": 512}},
        {"environment": GAME, "training": {"maxContextLength": 4097}, "sampling": {"maxTokens": 512}},
    ),
    "temperature-near-greedy": ({"sampling": {"temperature": 0.29}}, {"sampling": {"temperature": 0.3}}),
    "temperature-high": ({"sampling": {"temperature": 1.21}}, {"sampling": {"temperature": 1.2}}),
    "top-p-zero": ({"sampling": {"topP": 0}}, {"sampling": {"topP": 0.5}}),
    "top-p-low": (
        {"sampling": {"topP": 0.19, "topK": 0}},
        {"sampling": {"topP": 0.2, "topK": 0}},
    ),
    "top-k-one": ({"sampling": {"topK": 1}}, {"sampling": {"topK": 10}}),
    "top-k-low": ({"sampling": {"topK": 9}}, {"sampling": {"topK": 10}}),
    "top-k-above-50": ({"sampling": {"topK": 51}}, {"sampling": {"topK": 50}}),
    "num-rollouts-few": ({"sampling": {"numRollouts": 3}}, {"sampling": {"numRollouts": 4}}),
    "num-rollouts-many": ({"sampling": {"numRollouts": 7}}, {"sampling": {"numRollouts": 6}}),
    "max-tokens-low": ({"sampling": {"maxTokens": 63}}, {"sampling": {"maxTokens": 64}}),
    "thought-cut": (
        {"model": {"name": "org/Some-8B-Thinking"}, "sampling": {"maxTokens": 4095}},
        {"model": {"name": "org/Some-8B-Thinking"}, "sampling": {"maxTokens": 4096}},
    ),
    "max-tokens-high": (
        {
            "training": {"batchSizeTokens": 65536, "maxContextLength": 12000},
            "sampling": {"maxTokens": 8193},
        },
        {
            "training": {"batchSizeTokens": 65536, "maxContextLength": 12000},
            "sampling": {"maxTokens": 8192},
        },
    ),
    "max-tokens-fills-context": (
        {"training": {"maxContextLength": 1024}, "sampling": {"maxTokens": 769}},
        {"training": {"maxContextLength": 1024}, "sampling": {"maxTokens": 768}},
    ),
    "temperature-unfiltered": (
        {"sampling": {"temperature": 1.01, "topK": 0}},
        {"sampling": {"temperature": 1.0, "topK": 0}},
    ),
    "creative-temperature-low-top-p": (
        {"sampling": {"temperature": 1.0, "topP": 0.89}},
        {"sampling": {"temperature": 1.0, "topP": 0.9}},
    ),
    "top-k-with-low-top-p": ({"sampling": {"topP": 0.49}}, {"sampling": {"topP": 0.5}}),
    "learning-rate-raised-alone": (
        {"training": {"learningRate": 1.5e-4}},
        {"training": {"learningRate": 1.5e-4, "batchSizeTokens": 65536}},
    ),
    "epochs-with-high-rank": (
        {"training": {"epochs": 2, "loraRank": 16}},
        {"training": {"epochs": 2, "loraRank": 8}},
    ),
    "clip-without-effect": (
        {"training": {"clipHigh": 0.3}},
        {"training": {"clipHigh": 0.3, "updatesPerBatch": 2}},
    ),
    "objective-like-grpo": (
        {"training": {"objective": "cispo"}},
        {"training": {"objective": "cispo", "updatesPerBatch": 2}},
    ),
    "stale-bounds-without-effect": (
        {"training": {"staleTokenHigh": 3, "maxStaleness": 0}},
        {"training": {"staleTokenHigh": 3, "maxStaleness": 1}},
    ),
    "many-changes": (
        {"training": {"epochs": 2, "batchSizeTokens": 16384}, "sampling": {"topK": 30, "temperature": 0.8}},
        {"training": {"epochs": 2, "batchSizeTokens": 16384}, "sampling": {"topK": 30}},
    ),
    "tracking-without-backend": ({"tracking": {}}, {"tracking": {"tensorboard": {}}}),
    "storage-ephemeral": ({"storage": {"ephemeral": {}}}, CLAIM),
    "password-in-address": (
        {"tracking": {"mlflow": {"trackingUri": "https://me:pw@mlflow.example", "experiment": "e"}}},
        {"tracking": {"mlflow": {"trackingUri": "https://mlflow.example/a:b@c", "experiment": "e"}}},
    ),
    "evaluation-off": (
        {"evaluation": {"fraction": 0}},
        {"evaluation": {"fraction": 0, "dataset": {"uri": "./held-out.jsonl"}}},
    ),
    "stop-never-applies": (
        {"stop": {"patience": 2}},
        {"stop": {"patience": 2}, "evaluation": {"everySteps": 10}},
    ),
    "gpus-against-accelerator": (
        {"resources": {"gpus": 2, "accelerator": {"name": "cpu"}}},
        {"resources": {"gpus": 0, "accelerator": {"name": "cpu"}}},
    ),
    "cpu-for-large-model": (
        {"resources": {"gpus": 0}, "model": {"name": "org/some-1B"}},
        {"resources": {"gpus": 0}, "model": {"name": "org/some-900M"}},
    ),
}

# All headings of the tuning guide that give advice, and each item of its section "Common Patterns".
GUIDE = (
    "Overview",
    "Learning Rate",
    "Epochs",
    "LoRA Rank",
    "Batch Size",
    "Temperature",
    "Top-p (Nucleus Sampling)",
    "Top-k",
    "Number of Rollouts (n)",
    "Max Tokens",
    "Temperature + Top-p/Top-k",
    "Learning Rate + Batch Size",
    "LoRA Rank + Model Size",
    "Start with Defaults",
    "One Change at a Time",
    "Track Everything",
    "Faster convergence",
    "Better quality",
    "Safer/less toxic",
    "More creative",
    "Lower cost",
    "Higher capacity",
    "Prevent overfitting",
)


def ids(spec: dict[str, Any]) -> list[str]:
    return [advice.rule for advice in advise(parse(manifest(**{**CLAIM, **spec})).spec)]


@pytest.mark.parametrize(
    ("address", "is_secret"),
    [
        ("https://me:p@ss@grader.example/score", True),
        ("https://0123456789abcdef@grader.example/score", True),
        ("https://grader.example/score?sig=abcdef", True),
        ("https://grader.example:8443/a@b", False),
        ("https://grader.example/score?page=2", False),
    ],
)
def test_a_credential_in_an_address_is_found_in_every_place(address: str, is_secret: bool) -> None:
    graders = [{"name": "g", "http": {"url": address}}]
    said = [
        one.message for one in advise(parse(manifest(graders=graders)).spec) if "contains a" in one.message
    ]
    assert [("spec.graders[0].http.url" in text) for text in said] == [True] * is_secret
    assert address not in "".join(said)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_each_rule_applies_just_beyond_its_limit_and_not_at_it(rule: AdviceRule) -> None:
    beyond, edge = CASES[rule.id]
    assert ids(beyond) == [rule.id]
    assert rule.id not in ids(edge)


def test_default_values_trigger_no_rule_for_any_model_size() -> None:
    for name in ("org/model", "org/model-135M", "org/model-7B", "org/model-70B", "org/model-405B"):
        assert ids({"model": {"name": name}}) == []


def test_dapo_differs_from_grpo_as_long_as_it_has_refills_or_the_penalty() -> None:
    def dapo(**training: Any) -> list[str]:
        return ids({"training": {"objective": "dapo", **training}})

    assert dapo() == dapo(refillRounds=0) == dapo(overlongPenalty=0) == []
    assert dapo(refillRounds=0, overlongPenalty=0) == ["objective-like-grpo"]


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        ({"training": {"maxStaleness": 0}}, "maxStaleness is 0"),
        ({"training": {"deterministic": True}}, "deterministic is true"),
        ({"sampling": {"engine": "transformers"}}, "engine is transformers"),
    ],
)
def test_bounds_for_stale_batches_say_why_no_batch_is_stale(cause: dict[str, Any], said: str) -> None:
    bounds = {"staleTokenLow": 0.4, "staleSequenceHigh": 5}
    spec = parse(manifest(**{**CLAIM, **cause, "training": {**cause.get("training", {}), **bounds}})).spec
    (advice,) = advise(spec)
    assert said in advice.message
    assert "staleTokenLow 0.4 and staleSequenceHigh 5" in advice.message


def test_advice_names_field_value_and_rule() -> None:
    (advice,) = advise(parse(manifest(**CLAIM, sampling={"topK": 80})).spec)
    assert str(advice).startswith("spec.sampling.topK: 80 ")
    assert str(advice).endswith("[top-k-above-50]")
    assert "50" in advice.message


def test_zero_gpus_contradict_an_accelerator_too() -> None:
    assert "gpus-against-accelerator" in ids(
        {"resources": {"gpus": 0, "accelerator": {"name": "nvidia-h100-80gb"}}}
    )


def test_the_models_size_in_the_spec_takes_precedence_over_its_name() -> None:
    model = {"name": "org/misnamed-70B", "parameters": "7B"}
    assert ids({"model": model, "training": {"loraRank": 32}}) == ["lora-rank-high-for-small-model"]


def test_the_guides_own_examples_trigger_no_rule() -> None:
    assert ids({"sampling": {"temperature": 0.8, "topP": 0.9, "topK": 40}}) == []
    assert ids({"sampling": {"temperature": 0.4, "topP": 0.5, "topK": 20}}) == []
    assert ids({"sampling": {"temperature": 1.2, "topP": 0.9}}) == []


def test_rule_ids_are_unique_and_their_fields_exist() -> None:
    assert len({rule.id for rule in ALL}) == len(ALL)
    for rule in ALL:
        assert all(find(path).path == path for path in rule.paths), rule.id


@pytest.mark.parametrize("heading", GUIDE)
def test_every_heading_of_the_guide_has_existing_rules(heading: str) -> None:
    known = {rule.id for rule in ALL}
    found = {str(name): rules for name, rules in rules_by_heading().items()}
    assert tuple(found) == GUIDE
    assert found[heading]
    assert set(found[heading]) <= known


def test_the_page_of_advice_lists_every_rule_once_with_its_condition() -> None:
    lines = advice_markdown().splitlines()
    for rule in ALL:
        (line,) = [line for line in lines if line.startswith(f"| `{rule.id}` |")]
        assert rule.when in line
        assert line.count("|") == 5
    for above, line in pairwise(lines):
        assert not (line.startswith("| --- ") and not above.startswith("| "))


FOLDER = ROOT / "examples" / "advice"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_example_triggers_only_the_rule_in_its_name(path: Path) -> None:
    (document,) = load_file(path)
    job, problems = check(document.body)
    assert job is not None, problems
    assert job.metadata.name == path.stem
    wanted = [] if path.stem == "defaults" else [path.stem]
    assert [advice.rule for advice in advise(job.spec)] == wanted
    assert path.read_text().startswith("# ")


def test_there_are_twelve_examples_and_one_with_the_defaults() -> None:
    assert len(list(FOLDER.glob("*.yaml"))) == 13


def test_the_main_example_explains_each_value_that_is_advised_against() -> None:
    text = (ROOT / "examples" / "arithmetic.yaml").read_text()
    (job,) = [d.body for d in load_file(ROOT / "examples" / "arithmetic.yaml") if d.body["kind"] == "RFTJob"]
    head = text.partition("apiVersion")[0]
    advised = {advice.path.rpartition(".")[2] for advice in advise(parse(job).spec)}
    assert advised == {"learningRate", "batchSizeTokens", "maxTokens"}
    for field in advised:
        assert field in head
        (line,) = [line for line in text.splitlines() if line.strip().startswith(f"{field}:")]
        assert " # " in line


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("Qwen/Qwen3-0.6B", True),
        ("Qwen/Qwen3-4B-Thinking-2507", True),
        ("Qwen/Qwen3-4B-Instruct-2507", False),
        ("Qwen/Qwen3-8B-Base", False),
        ("/models/qwen3-8b/", True),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", True),
        ("microsoft/Phi-4-mini-reasoning", True),
        ("openai/gpt-oss-20b", True),
        ("HuggingFaceTB/SmolLM3-3B", True),
        ("HuggingFaceTB/SmolLM3-3B-Base", False),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", False),
        ("Qwen/Qwen2.5-7B-Instruct", False),
        ("meta-llama/Llama-3.1-8B-Instruct", False),
    ],
)
def test_a_thinking_model_is_known_by_its_name(model: str, expected: bool) -> None:
    assert thinks(model) is expected


def test_a_model_whose_thinking_is_turned_off_gets_no_advice_about_thoughts() -> None:
    model = {"name": "Qwen/Qwen3-0.6B", "chatTemplateArgs": {"enable_thinking": False}}
    assert "thought-cut" not in ids({"model": model, "sampling": {"maxTokens": 512}})
