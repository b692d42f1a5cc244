"""``python -m tests.resume``: kills a run with vLLM at random moments, and compares the result with another
run.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO

from rft_run.exit_codes import ExitCode
from rft_run.folder import RunFolder, adapter_weights_of
from rft_trainer.rollout.vllm_server import reap
from tests.resume.runs import checkpoints, digest, left, prepare, start, start_environment


def main() -> int:
    """Make an undisturbed run and a run that is killed repeatedly. Return 1 if their results differ."""
    options = _parser().parse_args()
    with kept(options.folder) as name:
        alone, killed = Path(name) / "alone", Path(name) / "killed"
        seconds = undisturbed_run(alone, options)
        print(f"undisturbed run: {options.steps} steps in {seconds:.0f} s", flush=True)
        # The mean time between kills is an eighth of the run's duration. Each kill also costs a restart, so
        # the run lasts about ten such intervals.
        options.latest = options.latest or seconds / 4
        wrong = list(kill_repeatedly(killed, alone, options))
        if has_ended(killed):  # also if it ended before the last kill
            wrong += differences(alone, killed)
        print("\n".join(wrong) or "nothing differs")
    return 1 if wrong else 0


def kept(folder: Path | None) -> AbstractContextManager[str]:
    """Return a context manager that yields the folder of the runs.

    If ``folder`` is given, it is created and kept. If it is None, a temporary folder is used and then
    deleted.
    """
    if folder is None:
        return tempfile.TemporaryDirectory(prefix="rft-resume-")
    folder.mkdir(parents=True)
    return nullcontext(str(folder))


def has_ended(folder: Path) -> bool:
    """Return whether a run has written its final adapter."""
    return adapter_weights_of(RunFolder(folder).adapter).exists()


def differences(alone: Path, killed: Path) -> Iterator[str]:
    """Yield the parts in which the results of two successful runs differ."""
    one, other = left(alone), left(killed)
    print(f"compared: {', '.join(one)}")
    yield from (f"{part} differs" for part in one if one[part] != other[part])


class Attempts:
    """The attempts of a run, which follow each other.

    ``trainer`` is the trainer's process of the newest attempt. ``environment`` is the process of its
    environment, or None.
    """

    def __init__(self, config: Path, log: IO[bytes]) -> None:
        """Start the first attempt."""
        self._config, self._log = config, log
        self._start()

    def _start(self) -> None:
        self.environment = start_environment(self._config.parent, self._log)
        self.trainer = start(self._config, self._log)

    def ends_within(self, seconds: float | None) -> int | None:
        """Return the exit code of the run, or None if the run does not end within ``seconds``.

        If ``seconds`` is None, wait until the run ends.

        If a sampler is killed during its start, the attempt ends. Then this method starts the next attempt,
        as a Job would do.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            left_over = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                code = self.trainer.wait(left_over)
            except subprocess.TimeoutExpired:
                return None
            if code != ExitCode.SAMPLER:
                return code
            self.again()

    def again(self) -> None:
        """Wait until the attempt has ended. Then start the next attempt."""
        self._end()
        self._start()

    def kill(self) -> None:
        """Kill the newest attempt. Wait until its processes have ended."""
        self.trainer.kill()
        self._end()

    def _end(self) -> None:
        self.trainer.wait()
        if self.environment is not None:
            self.environment.wait()


def undisturbed_run(folder: Path, options: argparse.Namespace) -> float:
    """Make a run that is never killed. Return its duration in seconds."""
    began = time.monotonic()
    config = prepare(folder, options.steps, options.environment)
    with (folder / "log").open("wb") as log:
        code = Attempts(config, log).trainer.wait()
    if code != 0:
        sys.exit(f"the run ended with {code}:\n{log_tail(folder)}")
    return time.monotonic() - began


def log_tail(folder: Path) -> str:
    """Return the end of a run's log."""
    return (folder / "log").read_text()[-4000:]


def kill_repeatedly(folder: Path, alone: Path, options: argparse.Namespace) -> Iterator[str]:
    """Kill a process of the run ``options.kills`` times. Then wait until the run ends.

    ``alone`` is the folder of the undisturbed run. Yield each difference between the checkpoints of both
    runs, and a message if the run fails or ends too early.
    """
    config = prepare(folder, options.steps, options.environment)
    with (folder / "log").open("wb") as log:
        attempts = Attempts(config, log)
        try:
            yield from _kills(attempts, folder, alone, options)
            code = attempts.ends_within(None)
            if code != 0:
                yield f"the run ended with {code}:\n{log_tail(folder)}"
        finally:
            attempts.kill()
            reap(folder)


def _kills(attempts: Attempts, folder: Path, alone: Path, options: argparse.Namespace) -> Iterator[str]:
    draw = random.Random(options.seed)
    expected = {step: digest(path) for step, path in checkpoints(alone).items()}
    # The checkpoint of the last step is written twice, the second time after the last evaluation. So the ends
    # of the runs are compared separately.
    del expected[options.steps]
    print(
        "| kill | killed process | seconds since the previous kill, or the start | newest checkpoint's step "
        "| all checkpoints equal those of the undisturbed run |"
    )
    print("|--:|---|--:|--:|---|", flush=True)
    for kill in range(1, options.kills + 1):
        moment = draw.uniform(2.0, options.latest)
        if attempts.ends_within(moment) is not None:
            yield f"the run ended before kill {kill} of {options.kills}:\n{log_tail(folder)}"
            return
        what = kill_one(attempts, folder, draw)
        found = checkpoints(folder)
        wrong = [
            f"after kill {kill}: {part} of step {number}"
            for number, path in found.items()
            if number in expected
            for part in different_parts(digest(path), expected[number])
        ]
        print(
            f"| {kill} | {what} | {moment:.0f} | {max(found, default=0)} | {'no' if wrong else 'yes'} |",
            flush=True,
        )
        yield from wrong
        if what != "sampler":
            # The trainer ends if its environment is lost, as it does in a pod.
            attempts.again()


def different_parts(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return the names of the parts in which two checkpoints differ. Arguments: results of ``digest``."""
    return [part for part in one.keys() | other.keys() if one.get(part) != other.get(part)]


def kill_one(attempts: Attempts, folder: Path, draw: random.Random) -> str:
    """Kill the sampler, the environment or the trainer, at random. Return its name.

    If no sampler is running yet, or if the run has no environment, kill the trainer.
    """
    chosen = draw.random()
    if attempts.environment is not None:
        if chosen < 1 / 3:
            attempts.environment.kill()
            return "environment"
        chosen = (chosen - 1 / 3) * 3 / 2
    if chosen < 0.5 and reap(folder):
        return "sampler"
    attempts.trainer.kill()
    return "trainer"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.resume", description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="number of kills (default 10)")
    parser.add_argument("--steps", type=int, default=24, help="number of steps of a run (default 24)")
    parser.add_argument(
        "--latest",
        type=float,
        help="most seconds between two kills (default: a quarter of the run's duration)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed for the random moments (default 0)")
    parser.add_argument(
        "--environment",
        action="store_true",
        help="rollouts of two turns with an environment, whose process is killed too",
    )
    parser.add_argument("--folder", type=Path, help="keep both runs in this folder, which must not exist yet")
    return parser


if __name__ == "__main__":
    sys.exit(main())
