"""``python -m tests.chaos``: injects faults into jobs on the running test cluster, and prints a table."""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from tests.chaos.again import DELETED, EXPIRED, delete_and_apply, let_expire_and_apply
from tests.chaos.faults import FAULTS, NOTHING, mount_small, unmount
from tests.chaos.place import NAMESPACE, OPERATOR_NAMESPACE, clear, cluster, namespace
from tests.chaos.rounds import Moments, Outcome, play, table
from tests.integration.account_support import Audit
from tests.kubectl import Kubectl

OPERATOR_ACCOUNT = "system:serviceaccount:rft-system:rft-operator"


@dataclass(frozen=True)
class Scenario:
    """A fault, or the second apply of a manifest. Each scenario has one row in the printed table."""

    name: str
    play: Callable[[Kubectl, Kubectl, Sequence[str], str, Moments], list[Outcome]]
    """A function that runs the scenario, and returns one outcome for each job that it used. Its arguments:

    1. kubectl in the jobs' namespace;
    2. kubectl in the operator's namespace;
    3. the names of the jobs;
    4. the sampling engine;
    5. ``Moments``, which draws at which time the fault begins."""
    engine: str | None = None
    """The sampling engine that the scenario needs. None: it works with each engine."""


def _alone(
    play_one: Callable[[Kubectl, str, str, Moments], Outcome],
    jobs: Kubectl,
    _: Kubectl,
    names: Sequence[str],
    engine: str,
    when: Moments,
) -> list[Outcome]:
    """Call ``play_one`` with the first of ``names`` only: more jobs would not test more."""
    return [play_one(jobs, names[0], engine, when)]


UNDISTURBED = Scenario(NOTHING.name, partial(play, NOTHING))
SCENARIOS = (
    *(Scenario(fault.name, partial(play, fault), fault.engine) for fault in FAULTS),
    Scenario(DELETED, partial(_alone, delete_and_apply)),
    Scenario(EXPIRED, partial(_alone, let_expire_and_apply)),
)


def main() -> int:
    """Run all rounds. Return 1 if a job ended with a wrong result, or a scenario hit too few jobs.

    Return 1 also if the API server refused a request of the operator because a right is missing.
    """
    options = _parser().parse_args()
    # Raise SystemExit on SIGTERM, so that the namespace is deleted and stopped processes are continued.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    scenarios = chosen(options.fault, options.engine)
    jobs = Kubectl(*cluster(), NAMESPACE)
    operator = Kubectl(jobs.program, jobs.kubeconfig, OPERATOR_NAMESPACE)
    outcomes: list[Outcome] = []
    with namespace(jobs, options.keep, mount=mount_small, unmount=unmount):

        def play(scenario: Scenario, when: Moments) -> list[Outcome]:
            names = [f"chaos-{len(outcomes) + i}" for i in range(options.at_once)]
            seen = scenario.play(jobs, operator, names, options.engine, when)
            print(*(json.dumps(vars(one)) for one in seen), sep="\n", file=sys.stderr, flush=True)
            if not (options.keep and any(one.wrong for one in seen)):
                clear(jobs, names)
            outcomes.extend(seen)
            return seen

        try:
            life = median(one.seconds for one in play(UNDISTURBED, Moments(options.seed, 0.0)))
            for number, scenario in due(scenarios, outcomes, options.times):
                seen = play(scenario, Moments(options.seed + number, life))
                if options.keep and any(one.wrong for one in seen):
                    break
        finally:
            print(f"engine {options.engine}, seed {options.seed}")
            print("\n".join(table(outcomes, [scenario.name for scenario in (UNDISTURBED, *scenarios)])))
    few = [scenario.name for scenario in scenarios if hit_jobs(scenario, outcomes) < options.times]
    if few:
        print(f"scenarios that hit fewer than {options.times} jobs: {', '.join(few)}")
    refused = [request for request in Audit().requests(OPERATOR_ACCOUNT) if request.refused]
    print(f"requests of the operator that were refused because a right is missing: {len(refused)}")
    return 1 if few or refused or any(outcome.wrong for outcome in outcomes) else 0


def due(scenarios: list[Scenario], outcomes: list[Outcome], times: int) -> Iterator[tuple[int, Scenario]]:
    """Yield ``(round, scenario)`` for each scenario in turn, until each has hit ``times`` jobs.

    The caller must append the results of each yielded scenario to ``outcomes``. A scenario may hit no job,
    for example if the job ends before the fault. So each scenario is yielded at most 2 × ``times`` times.
    """
    for number in range(2 * times):
        for scenario in scenarios:
            if hit_jobs(scenario, outcomes) < times:
                yield number, scenario


def hit_jobs(scenario: Scenario, outcomes: list[Outcome]) -> int:
    """Return how many jobs in ``outcomes`` a scenario has hit."""
    return sum(one.hit for one in outcomes if one.fault == scenario.name)


def chosen(names: list[str] | None, engine: str) -> list[Scenario]:
    """Return the scenarios that work with ``engine``.

    If ``names`` is not empty, return only scenarios whose name begins with one of these texts.
    """
    asked = [
        scenario
        for scenario in SCENARIOS
        if not names or any(scenario.name.startswith(name) for name in names)
    ]
    return [scenario for scenario in asked if scenario.engine in (None, engine)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--times", type=int, default=10, help="number of jobs that each fault must hit (default 10)"
    )
    parser.add_argument(
        "--at-once",
        type=int,
        default=1,
        help="number of jobs that one fault hits at the same time (default 1)",
    )
    parser.add_argument(
        "--fault", action="append", help="run only faults whose name begins with this text; may be repeated"
    )
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--seed", type=int, default=0, help="seed for the random moments (default 0)")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="stop after the first wrong result, and keep the namespace for inspection",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
