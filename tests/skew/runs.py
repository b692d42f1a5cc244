"""A run on this machine that one release begins, and another one continues after ``kill -9``."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.chaos.jobs import job, write_model
from tests.skew.releases import Release
from tests.waiting import wait_until

STEPS = 12
BEGUN_STEPS = 3
"""Steps that the first release makes before it is killed."""
SECONDS = 300.0


def continued(writer: Release, reader: Release, folder: Path) -> None:
    """Begin a run with ``writer``, kill it, and continue it with ``reader``. Both must show its curve.

    Raises:
        AssertionError: the run does not continue, a step is missing or was recorded twice, or a command
            cannot read the run's folder.
    """
    manifest, output = _prepared(folder), folder / "run"
    command = writer.rft("run", manifest, "--output", output)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=writer.environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_until(f"{BEGUN_STEPS} steps", lambda: len(_steps(output)) >= BEGUN_STEPS, SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{(folder / 'log').read_text()[-2000:]}") from error
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    begun = len(_steps(output))
    assert begun < STEPS, "the run ended before it was killed"
    _succeeds(reader, folder, "run", manifest, "--output", output)
    steps = _steps(output)
    assert steps == list(range(1, STEPS + 1)), f"the records have the steps {steps}"
    for release in (writer, reader):
        _succeeds(release, folder, "curve", output)


def _succeeds(release: Release, folder: Path, *arguments: str | Path) -> None:
    done = subprocess.run(
        release.rft(*arguments),
        env=release.environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    what = f"rft {arguments[0]} of {release.name}"
    assert done.returncode == 0, f"{what} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}"


def _steps(output: Path) -> list[int]:
    """Return the numbers of the steps in the run's records. The last line may be incomplete."""
    records = output / "metrics.jsonl"
    if not records.exists():
        return []
    lines = records.read_text().splitlines(keepends=True)
    return [int(json.loads(line)["step"]) for line in lines if line.endswith("\n")]


def _prepared(folder: Path) -> Path:
    """Write model, rows and manifest of a small run into ``folder``. Return the manifest's path."""
    folder.mkdir(parents=True)
    model = folder / "model"
    model.mkdir()
    write_model(model)
    rows = [
        {"messages": [{"role": "user", "content": f"{a}+{b}"}], "answer": a + b}
        for a in range(10, 22)
        for b in range(10, 20)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made: dict[str, Any] = job("skew", "transformers")
    del made["spec"]["template"]
    made["spec"] |= {
        "model": {"name": str(model)},
        "dataset": {"uri": "./rows.jsonl"},
        "resources": {"gpus": 0},
        "checkpoint": {"everySteps": 1},
        "stop": {"maxSteps": STEPS},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(made))
    return path
