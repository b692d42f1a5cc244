"""Measures what only a GPU can show, part by part. Writes the results into one JSON file and one page.

`make gpu-check` is for a machine with a GPU and no network, on which a command may take ten minutes at most.
Each part takes less than nine minutes, and runs in a process of its own. A command runs as many parts as fit
into its time. Repeat the command to run the other parts. Parts that have a result are not run again.

Exit codes:

- 0: all parts passed.
- 1: at least one part failed.
- 3: no part failed, but some parts have not been run yet.

The check works with the package versions of `constraints-gpu.txt`. It also works with older versions, down to
`OLDEST` in `bench/gpu/parts.py`. `--device cpu` tries everything without a GPU, with tiny sizes.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

from bench.gpu.page import page
from bench.gpu.parts import Found, Part, Target, parts
from bench.gpu_check import line
from bench.memory import ROOT

LEFT = 3
"""The exit code if no part failed, but some parts have not been run yet."""


def due(planned: Sequence[Part], done: Mapping[str, Found], again: bool) -> list[Part]:
    """Return the parts without a result. With ``again`` also return the parts that failed."""
    return [part for part in planned if part.name not in done or (again and not done[part.name]["ok"])]


def result_of(target: Target, part: Part) -> Path:
    """Return the path of the file for a part's result."""
    return target.folder / "parts" / f"{part.name.replace(': ', '-').replace(' ', '-')}.json"


def results(target: Target, planned: Sequence[Part]) -> dict[str, Found]:
    """Return the stored results, in the order of ``planned``. The keys are the names of the parts."""
    files = {part.name: result_of(target, part) for part in planned}
    return {name: json.loads(file.read_text("utf-8")) for name, file in files.items() if file.exists()}


def carry_out(part: Part, target: Target) -> Found:
    """Run a part in a process of its own. Write its result into a file, and return the result.

    A part that has not ended after ``part.seconds`` is killed. The process is forked, so it does not import
    everything again. Forking is possible because this process has not used the GPU.
    """
    file = result_of(target, part)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".partial")
    unfinished.unlink(missing_ok=True)
    started = time.monotonic()
    process = multiprocessing.get_context("fork").Process(target=_in_process, args=(part, target, unfinished))
    process.start()
    process.join(part.seconds)
    assert process.pid is not None
    if process.is_alive():
        error = f"the part was ended after {part.seconds} seconds"
    else:
        error = f"the part's process ended with exit code {process.exitcode}; see {file.with_suffix('.log')}"
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # also what the part has started
    process.join()
    if not unfinished.exists():
        seconds = round(time.monotonic() - started, 1)
        failed = {"check": part.name, "ok": False, "error": error, "seconds": seconds}
        unfinished.write_text(json.dumps(failed), encoding="utf-8")
    unfinished.rename(file)
    found: Found = json.loads(file.read_text("utf-8"))
    return found


def _in_process(part: Part, target: Target, file: Path) -> None:
    os.setsid()
    with (
        file.with_suffix(".log").open("w") as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        found = line(part.name, part.run, target)
    written = file.with_suffix(".new")
    written.write_text(json.dumps(found), encoding="utf-8")
    written.rename(file)


def write(target: Target, planned: Sequence[Part]) -> tuple[list[str], list[str]]:
    """Write the JSON file and the page.

    Return two lists of names: the parts without a result, and the parts that failed.
    """
    done = results(target, planned)
    left = [part.name for part in due(planned, done, again=False)]
    report = {"device": target.device, "left": left, "parts": done}
    (target.folder / "gpu-check.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (target.folder / "gpu-check.md").write_text(page(report), encoding="utf-8")
    return left, [name for name, one in done.items() if not one["ok"]]


def main() -> int:
    """Run as many parts as there is time for. Return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a trial with tiny sizes"
    )
    parser.add_argument("--output", type=Path, help="folder of the results (default: runs/gpu-check-DEVICE)")
    parser.add_argument("--minutes", type=float, default=9.5, help="time limit of this command")
    parser.add_argument("--only", action="append", help="run only this part; may be repeated")
    parser.add_argument("--again", action="store_true", help="run failed parts again too")
    arguments = parser.parse_args()
    folder = arguments.output or ROOT / "runs" / f"gpu-check-{arguments.device}"
    target = Target(arguments.device, folder.resolve())
    planned = list(parts(target))
    names = [part.name for part in planned]
    unknown = [name for name in arguments.only or [] if name not in names]
    if unknown:
        parser.error(f"--only {unknown[0]}: not a part; the parts are {', '.join(names)}")
    ends = time.monotonic() + 60 * arguments.minutes
    ran = False
    for part in due(planned, results(target, planned), arguments.again):
        if arguments.only and part.name not in arguments.only:
            continue
        if ran and time.monotonic() + part.seconds > ends:
            continue  # for a shorter part there may be time
        found, ran = carry_out(part, target), True
        print(json.dumps(found), flush=True)
        if part.name == "versions" and not found["ok"]:
            break  # then every other part would fail too
    left, failed = write(target, planned)
    print(f"{target.folder / 'gpu-check.md'}: {len(left)} parts left, {len(failed)} failed", file=sys.stderr)
    return 1 if failed else LEFT if left else 0


if __name__ == "__main__":
    sys.exit(main())
