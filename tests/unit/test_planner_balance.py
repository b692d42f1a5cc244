"""The number of GPUs with which sampling takes as long as training, and how the GPUs are divided."""

import pytest

from rft_api.validation import parse
from rft_planner.accelerators import ACCELERATORS, NODE_GPUS
from rft_planner.balance import StepSeconds, balanced
from rft_planner.catalogue import CATALOGUE
from rft_planner.memory import MemoryDemand
from rft_planner.plan import plan
from rft_planner.split import Split, apart
from tests.manifests import manifest

SHAPE, WORK = CATALOGUE["Qwen/Qwen2.5-7B"], MemoryDemand(8, 4096, 4)
MEMORY = ACCELERATORS["nvidia-h100-80gb"].memory


def balanced_for(sampling: float, update: float) -> Split:
    """Return the balanced split. One GPU would sample for ``sampling`` s and update for ``update`` s."""
    found = balanced(
        SHAPE, WORK, MEMORY, lambda split: StepSeconds(sampling / split.sampler_gpus, update / split.trainers)
    )
    assert found is not None
    return found[0]


@pytest.mark.parametrize(
    ("sampling", "update", "trainers", "sampler_gpus"),
    [(10, 10, 1, 1), (20, 10, 1, 2), (10, 30, 3, 1), (40, 30, 3, 4), (1000, 1, 1, 7), (1, 1000, 7, 1)],
)
def test_each_role_gets_gpus_in_proportion_to_its_work(
    sampling: float, update: float, trainers: int, sampler_gpus: int
) -> None:
    split = balanced_for(sampling, update)
    assert (split.trainers, split.sampler_gpus) == (trainers, sampler_gpus)


def test_no_other_division_that_fits_is_more_balanced() -> None:
    def uneven(split: Split) -> float:
        return StepSeconds(37 / split.sampler_gpus, 23 / split.trainers).uneven

    others = [split for count in range(2, NODE_GPUS + 1) for split in apart(count, SHAPE, WORK, MEMORY)]
    assert uneven(balanced_for(37, 23)) == min(map(uneven, others))


def test_a_plan_has_the_balanced_number_of_gpus_and_both_times() -> None:
    made = plan(parse(manifest(model={"name": "Qwen/Qwen2.5-7B"})).spec, "uid")
    assert made.balanced_gpus is not None
    assert made.gpus == 1 < made.balanced_gpus <= NODE_GPUS
    assert any("nearly the same time with" in note for note in made.notes or [])


def test_without_known_rates_there_is_no_balanced_number() -> None:
    for resources in ({"accelerator": {"memory": "80Gi"}}, {"gpus": 0}):
        made = plan(parse(manifest(model={"name": "Qwen/Qwen2.5-7B"}, resources=resources)).spec, "uid")
        assert made.balanced_gpus is None
