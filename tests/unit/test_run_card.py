"""The model card says what was trained, with which result, and how to load it. Private data is left out."""

import json
from pathlib import Path

import pytest
import yaml

from rft_api.effective import effective
from rft_api.status import BestEvaluation, EvaluationResult, GraderEvaluation, PairedDifference
from rft_api.validation import parse
from rft_run.card import Card, dress, licence_of, named, render
from rft_run.config import JobIdentity, RunConfig
from rft_run.folder import adapter_config_of, card_of
from tests.manifests import manifest

SCORE = GraderEvaluation(base=0.25, tuned=0.5, difference=PairedDifference(mean=0.25, low=0.125, high=0.375))
EVALUATION = EvaluationResult(rows=32, step=30, reward=SCORE, graders={"right": SCORE})


def config(name: str = "org/model") -> RunConfig:
    spec = parse(
        manifest(
            model={"name": name},
            dataset={"uri": "https://user:private@host/rows.jsonl?token=private"},
            graders=[
                {"name": "code", "python": {"inline": "def grade(completion, row): return 'private'"}},
                {"name": "judge", "model": {"url": "https://private", "model": "m", "prompt": "private"}},
            ],
            sampling={"stop": ["private"]},
            training={"loraRank": 4},
        )
    ).spec
    return RunConfig(
        job=JobIdentity(name="job", namespace="team", uid="uid"),
        spec=spec,
        effective=effective(spec, "uid"),
        run_dir="/private",
        dataset_path="/private/rows.jsonl",
    )


def test_a_card_has_base_licence_curve_evaluation_parameters_and_both_ways_to_load_it() -> None:
    curve = [(step, step / 100) for step in range(1, 100)]
    text = render(Card(config(), 30, "abc", "apache-2.0", curve, EVALUATION))
    assert yaml.safe_load(text.split("---")[1])["base_model"] == "org/model"
    assert "# job, step 30" in text
    assert "- base model: `org/model`, revision `abc`" in text
    assert "- licence of the base: apache-2.0" in text
    assert "| 1 | 0.010 |" in text
    assert "| 30 | 0.300 |" in text
    assert "| 31 |" not in text
    assert "| reward | 0.250 | 0.500 | +0.250 | +0.125 to +0.375 |" in text
    assert "| graders.judge | model, weight 1 |" in text
    assert 'from_pretrained("org/model", revision="abc")' in text
    assert "vllm serve org/model --revision abc --enable-lora --max-lora-rank 8 --lora-modules job=" in text


def test_a_card_has_nothing_private() -> None:
    assert "private" not in render(Card(config(), 30, "abc", None, [], EVALUATION))


@pytest.mark.parametrize(("step", "shown"), [(30, True), (20, True), (10, False)])
def test_a_card_shows_the_evaluation_of_its_own_step_only(step: int, shown: bool) -> None:
    result = EVALUATION.model_copy(update={"best": BestEvaluation(step=20, reward=SCORE)})
    assert ("## Held-out evaluation" in render(Card(config(), step, evaluation=result))) is shown


@pytest.mark.parametrize(("step", "heading"), [(30, "# job, step 30"), (0, "# job")])
def test_a_card_names_its_step_if_it_is_known(step: int, heading: str) -> None:
    assert heading in render(Card(config(), step)).splitlines()


def test_a_base_in_a_folder_is_no_id_of_the_hub() -> None:
    text = render(Card(config("/models/mine"), 1))
    assert "base_model:" not in text.split("# job")[0]
    assert "`/models/mine`" in text


def test_the_licence_is_what_the_bases_own_card_says(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    assert licence_of(tmp_path) is None
    for content in ("no front matter", "---\n- a\n---\n", "---\n: :\n---\n", "---\nlicense: [a]\n---\n"):
        card.write_text(content)
        assert licence_of(tmp_path) is None
    card.write_text("---\nlicense: other\nlicense_name: llama3\n---\n# Base")
    assert licence_of(tmp_path) == "llama3"


def test_a_licence_adds_nothing_but_its_name_to_a_card(tmp_path: Path) -> None:
    forged = 'license: "mit\\n\\n# Free [now](https://evil.example) <img src=x> \\x1b]0;x\\x07"'
    (tmp_path / "README.md").write_text(f"---\n{forged}\n---\n")
    licence = licence_of(tmp_path)
    assert licence == "mit Free now(https://evil.example) img srcx 0x"
    assert (
        len([line for line in render(Card(config(), 30, "abc", licence)).splitlines() if "Free" in line]) == 1
    )


def test_names_in_a_card_are_code_and_arguments_of_a_command() -> None:
    text = render(Card(config("org/`x` $(reboot)"), 30, "a`b;c"))
    assert "- base model: ``org/`x` $(reboot)``, revision ``a`b;c``" in text
    assert "vllm serve 'org/`x` $(reboot)' --revision 'a`b;c' --enable-lora" in text


def test_an_adapter_names_its_base_and_keeps_the_rest_of_its_configuration() -> None:
    body = {"r": 8, "base_model_name_or_path": "/cache/x", "revision": None}
    assert named(body, "org/model", "abc") == {
        "r": 8,
        "base_model_name_or_path": "org/model",
        "revision": "abc",
    }


def test_the_card_of_a_merged_model_needs_no_adapter() -> None:
    text = render(Card(config(), 30, "abc", None, [], EVALUATION, merged=True))
    assert "vllm serve MODEL --served-model-name job" in text
    assert "PeftModel" not in text


def test_a_card_says_that_the_best_checkpoint_was_chosen_on_the_rows() -> None:
    selected = EVALUATION.model_copy(update={"selected": True})
    assert "this reward is probably too high" in render(Card(config(), 30, "abc", None, [], selected))


def test_an_adapter_is_given_the_name_of_its_base_and_a_card(tmp_path: Path) -> None:
    written = {"base_model_name_or_path": "/cache/models--org--model", "r": 4}
    adapter_config_of(tmp_path).write_text(json.dumps(written))
    dress(tmp_path, Card(config(), 30, "abc"))
    body = json.loads(adapter_config_of(tmp_path).read_text())
    assert body == {"base_model_name_or_path": "org/model", "revision": "abc", "r": 4}
    assert "# job, step 30" in card_of(tmp_path).read_text()


def test_a_configuration_that_is_no_object_is_an_error(tmp_path: Path) -> None:
    adapter_config_of(tmp_path).write_text("[]")
    with pytest.raises(ValueError, match="is no JSON object"):
        dress(tmp_path, Card(config(), 30))
