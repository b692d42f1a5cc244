"""A suggested experiment changes one parameter within its range. Its manifest needs no edits."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_advice import advise
from rft_advice.baseline import ANNOTATION
from rft_advice.guide import NINE, value_of
from rft_advice.suggest import STEPS, Goal, experiment_name, other_goals, suggest
from rft_api.fields import find
from rft_api.job import MAX_NAME_LENGTH
from rft_api.problems import InvalidManifest
from rft_api.validation import check, parse
from tests.manifests import manifest

PATHS = {guide.path for guide in NINE}


jobs = st.builds(
    lambda name, training, sampling: {
        **manifest(training=training, sampling=sampling),
        "metadata": {"name": name, "labels": {"team": "a"}, "uid": "1", "resourceVersion": "5"},
    },
    st.from_regex(r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?", fullmatch=True),
    st.fixed_dictionaries(
        {},
        optional={
            "learningRate": st.floats(1e-5, 5e-4),
            "epochs": st.integers(1, 10),
            "loraRank": st.sampled_from([4, 8, 16, 32]),
            "batchSizeTokens": st.integers(1024, 10**6),
            "maxContextLength": st.integers(32, 40000),
        },
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(0.1, 2.0),
            "topP": st.floats(0, 1),
            "topK": st.integers(0, 100),
            "numRollouts": st.integers(2, 8),
            "maxTokens": st.integers(16, 16384),
        },
    ),
).filter(lambda document: check(document).job is not None)


@settings(max_examples=25, deadline=None)
@given(document=jobs, goal=st.sampled_from(Goal))
def test_every_suggestion_is_valid_and_differs_from_its_baseline_in_one_parameter(
    document: dict[str, Any], goal: Goal
) -> None:
    before = copy.deepcopy(document)
    found = suggest(document, goal)
    assert document == before
    assert len(found.experiments) + len(found.exhausted) == len(STEPS[goal])
    baseline = parse(document)
    for experiment in found.experiments:
        job, problems = check(experiment.manifest)
        assert job is not None, problems
        assert job.metadata.annotations == {ANNOTATION: baseline.metadata.name}
        assert job.metadata.labels == {"team": "a"}
        assert set(experiment.manifest["metadata"]) == {"name", "labels", "annotations"}
        assert len(job.metadata.name) <= MAX_NAME_LENGTH
        changed = {path for path in PATHS if value_of(job.spec, path) != value_of(baseline.spec, path)}
        assert changed == {experiment.path}
        assert find(experiment.path).allows(experiment.new)
        assert experiment.new == value_of(job.spec, experiment.path)
        assert experiment.old == value_of(baseline.spec, experiment.path)
        # Nothing else in the spec has changed.
        _, section, field = experiment.path.split(".")
        put_back = copy.deepcopy(experiment.manifest["spec"])
        assert put_back[section].pop(field) == experiment.new
        original = copy.deepcopy(document["spec"])
        original[section].pop(field, None)
        assert put_back == original
    names = [experiment.name for experiment in found.experiments]
    assert len(set(names)) == len(names)


@settings(max_examples=10, deadline=None)
@given(document=jobs, goal=st.sampled_from(Goal))
def test_repeated_suggestions_for_a_goal_come_to_an_end(document: dict[str, Any], goal: Goal) -> None:
    for _ in range(60):
        found = suggest(document, goal)
        if not found.experiments:
            return
        document = found.experiments[0].manifest
    pytest.fail(f"{goal}: after 60 suggestions there are still experiments")


FROM_DEFAULTS: dict[Goal, dict[str, Any]] = {
    Goal.FASTER_CONVERGENCE: {"epochs": 2, "learningRate": 1.5e-4},
    Goal.BETTER_QUALITY: {"temperature": 1.0, "numRollouts": 6, "maxTokens": 4096},
    Goal.SAFER: {"temperature": 0.5, "topP": 0.5, "topK": 20},
    Goal.MORE_CREATIVE: {"temperature": 1.0, "topP": 0.9},
    Goal.LOWER_COST: {"numRollouts": 2, "maxTokens": 1024, "batchSizeTokens": 16384},
    Goal.HIGHER_CAPACITY: {"loraRank": 16},
    Goal.PREVENT_OVERFITTING: {"loraRank": 4},
}


@pytest.mark.parametrize("goal", Goal)
def test_from_the_defaults_each_goal_follows_the_guides_pattern(goal: Goal) -> None:
    found = suggest(manifest(), goal).experiments
    assert {e.path.rpartition(".")[2]: e.new for e in found} == FROM_DEFAULTS[goal]


def test_a_low_learning_rate_goes_to_the_default_first_and_stays_below_twice_of_it() -> None:
    def next_rate(rate: float) -> Any:
        found = suggest(manifest(training={"learningRate": rate}), Goal.FASTER_CONVERGENCE).experiments
        return next((e.new for e in found if e.path.endswith("learningRate")), None)

    assert next_rate(2e-5) == 1e-4
    assert next_rate(1.2e-4) == 1.8e-4
    assert next_rate(1.5e-4) is None
    assert next_rate(5e-4) is None


def test_a_value_that_breaks_a_rule_across_fields_is_not_suggested() -> None:
    document = manifest(training={"maxContextLength": 3000})
    found = suggest(document, Goal.BETTER_QUALITY)
    assert "spec.sampling.maxTokens" not in {e.path for e in found.experiments}
    assert "spec.sampling.maxTokens 2048" in found.exhausted


def test_a_goal_at_its_limit_names_the_current_value_and_other_goals_remain() -> None:
    document = manifest(training={"loraRank": 32})
    found = suggest(document, Goal.HIGHER_CAPACITY)
    assert found.experiments == ()
    assert found.exhausted == ("spec.training.loraRank 32",)
    left = other_goals(document, Goal.HIGHER_CAPACITY)
    assert Goal.PREVENT_OVERFITTING in left
    assert Goal.HIGHER_CAPACITY not in left


def test_an_experiment_has_only_the_advice_that_its_baseline_does_not_have() -> None:
    document = manifest(training={"loraRank": 16})  # its storage is ephemeral, so it already gets advice
    (experiment,) = suggest(document, Goal.HIGHER_CAPACITY).experiments
    assert [advice.rule for advice in experiment.advice] == ["lora-rank-high"]
    assert "storage-ephemeral" in {advice.rule for advice in advise(parse(experiment.manifest).spec)}


def test_an_experiment_has_no_status_server_fields_suspend_or_cancel() -> None:
    document = manifest(storage={"claimTemplate": {"size": "5Gi"}}, suspend=True, cancel=True, sampling=None)
    document["status"] = {"phase": "Cancelled"}
    document["metadata"] = {
        "name": "job",
        "namespace": "team",
        "ownerReferences": [],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "mine"},
    }
    for experiment in suggest(document, Goal.SAFER).experiments:
        assert set(experiment.manifest) == {"apiVersion", "kind", "metadata", "spec"}
        assert not {"suspend", "cancel"} & set(experiment.manifest["spec"])
        assert experiment.manifest["metadata"] == {
            "name": experiment.name,
            "namespace": "team",
            "annotations": {"note": "mine", ANNOTATION: "job"},
        }


def test_names_contain_the_change_and_two_cut_names_stay_different() -> None:
    assert experiment_name("job", "learningRate", 1.5e-4) == "job-learningrate-0-00015"
    assert experiment_name("job", "learningRate", 5e-5) == "job-learningrate-5e-05"
    one = experiment_name("x" * 51 + "1", "topK", 20)
    two = experiment_name("x" * 51 + "2", "topK", 20)
    assert one != two
    assert len(one) == len(two) == MAX_NAME_LENGTH


def test_an_invalid_manifest_raises() -> None:
    with pytest.raises(InvalidManifest):
        suggest(manifest(training={"epochs": 0}), Goal.SAFER)
