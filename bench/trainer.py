"""Compares our trainer with TRL's GRPOTrainer on this machine's CPU: completions per second, and memory.

Both trainers train the same model on the same prompts with the same settings. Our trainer has two engines, so
there are three sides: TRL, and our trainer with each engine. The sides run one after the other, in turn.

There are two arms. In ``forced`` the model never generates an end token, so all completions have the same
length. In ``natural`` completions end by themselves.

`make bench-trainer` prints a table. `--rounds` sets the number of runs of each side, and `--steps` the number
of steps of a run.

Time is measured from the end of the first step to the end of the last step. The start of the side, the first
step and the evaluations are not measured. All graded completions count, also those of groups with equal
rewards. Memory is the peak of all processes of a side together, including the loading of the model. Pages of
files are divided among these processes.
"""

import argparse
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.memory import MIB, endless_example
from bench.sides import PROMPTS, ROLLOUTS, TRL, Case, Outcome, measure, prepare_trl
from rft_planner.precision import WIDTHS, fast_cpu_dtype
from rft_trainer.runtime import machine, models

SIDES = ("trl", "transformers", "vllm")
ARMS = ("forced", "natural")
PHASES = ("rollout", "grade", "update", "publish")


def tables(found: dict[tuple[str, str], list[Outcome]]) -> Iterator[str]:
    """Yield the lines of one table for each arm: ``forced`` and ``natural``.

    A line has the results of a side over all rounds. Speed and processor time are also compared with TRL's.
    ``found`` has the results of all rounds, by arm and side.
    """
    for arm in dict.fromkeys(arm for arm, _ in found):
        sides = {side: outcomes for (its_arm, side), outcomes in found.items() if its_arm == arm}
        yield f"\n{arm}\n"
        yield (
            "| side | completions/s | times TRL | core-s each | times TRL | tokens each | MiB | s a step: "
            + " | ".join(PHASES)
            + " |"
        )
        yield "|---|--:|--:|--:|--:|--:|--:|" + "--:|" * len(PHASES)
        for side, outcomes in sides.items():
            yield _line(side, outcomes, sides.get("trl"))


def _line(side: str, outcomes: Sequence[Outcome], base: Sequence[Outcome] | None) -> str:
    rates = [outcome.rate for outcome in outcomes]
    spread = f" ({min(rates):.2f}-{max(rates):.2f})" if len(rates) > 1 else ""
    ratio = f"{_rate(outcomes) / _rate(base):.2f}" if base else "-"
    thrift = f"{_cpu(base) / _cpu(outcomes):.2f}" if base else "-"
    tokens = statistics.fmean(outcome.tokens for outcome in outcomes)
    memory = max(outcome.memory for outcome in outcomes) / MIB
    phases = [f"{statistics.median(o.phase(name) for o in outcomes):.2f}" for name in PHASES]
    name = "TRL" if side == "trl" else f"ours, {side}"
    cells = [
        name,
        f"{_rate(outcomes):.2f}{spread}",
        ratio,
        f"{_cpu(outcomes):.2f}",
        thrift,
        f"{tokens:.1f}",
        f"{memory:.0f}",
        *phases,
    ]
    return f"| {' | '.join(cells)} |"


def _rate(outcomes: Sequence[Outcome]) -> float:
    return statistics.median(outcome.rate for outcome in outcomes)


def _cpu(outcomes: Sequence[Outcome]) -> float:
    return statistics.median(outcome.cpu for outcome in outcomes)


def cases(arguments: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """Yield the selected cases."""
    plain = models.resolve(models.EXAMPLE_MODEL)
    endless = folder / "endless"
    endless_example(endless)
    for arm in arguments.arm or ARMS:
        model = endless if arm == "forced" else plain
        yield Case(
            arm,
            model,
            arguments.tokens,
            arguments.steps,
            machine.usable_cores(),
            arguments.dtype,
            arguments.checkpointing,
        )


def main() -> None:
    """Run all sides. Print the speed of each run at its end, and the tables after all runs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1, help="number of runs of each side")
    parser.add_argument(
        "--steps",
        type=int,
        default=3,
        help="number of optimizer steps of a run; the first one is not measured",
    )
    parser.add_argument("--tokens", type=int, default=48, help="longest completion")
    parser.add_argument("--side", choices=SIDES, action="append", help="run only this side; may be repeated")
    parser.add_argument("--arm", choices=ARMS, action="append", help="run only this arm; may be repeated")
    parser.add_argument(
        "--dtype",
        choices=WIDTHS,
        default=fast_cpu_dtype(),
        help="dtype of the base model's weights (default: %(default)s)",
    )
    parser.add_argument(
        "--checkpointing",
        action="store_true",
        help="let TRL use gradient checkpointing, which is its default and saves memory",
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))  # to stop the child process too
    prepare_trl()
    found: dict[tuple[str, str], list[Outcome]] = {}
    with tempfile.TemporaryDirectory() as name:
        for case in cases(arguments, Path(name)):
            for number in range(arguments.rounds):
                for side in arguments.side or SIDES:
                    outcome = measure(side, case, Path(name) / f"{case.arm}-{side}-{number}")
                    found.setdefault((case.arm, side), []).append(outcome)
                    print(
                        f"{case.arm} {side}: {outcome.rate:.2f} completions/s, {outcome.cpu:.2f} core-s each",
                        file=sys.stderr,
                        flush=True,
                    )
    installed = (TRL / "requirements.txt").read_text().split()
    print(
        f"{next(name for name in installed if name.startswith('trl=='))}; weights in {arguments.dtype} on"
        f" all sides, adapters in float32; {PROMPTS} prompts with {ROLLOUTS} completions of at most"
        f" {arguments.tokens} tokens in a step; {arguments.steps - 1} steps counted in each run"
    )
    print("\n".join(tables(found)))


if __name__ == "__main__":
    main()
