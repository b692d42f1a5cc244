"""All cells of the Python client's notebook run. The notebook is stored without outputs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from rft_run.folder import RunFolder
from rft_run.steps import read_steps

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "notebook" / "digits.ipynb"

ON_ONE_CORE = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
"""Code that runs before the first cell. Such a small model is slower with several threads."""


def cells(kind: str) -> list[dict[str, Any]]:
    """Return the notebook's cells of a kind, ``code`` or ``markdown``, in their order."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_the_notebook_runs_to_its_last_cell(tmp_path: Path) -> None:
    folder = tmp_path / "notebook"
    shutil.copytree(NOTEBOOK.parent, folder)
    source = "\n\n".join("".join(cell["source"]) for cell in cells("code"))
    (folder / "cells.py").write_text(ON_ONE_CORE + source, encoding="utf-8")
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'trainer-image'}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MPLBACKEND": "agg",
    }
    ran = subprocess.run(
        [sys.executable, "cells.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=250
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-3000:]

    steps = read_steps(RunFolder(folder / "runs" / "digits").metrics)
    assert [step.step for step in steps] == list(range(1, 9))
    for step in steps:
        assert f"\nstep {step.step}: reward {step.reward:.3f}, " in ran.stdout
    assert "('training', 'learningRate')" in ran.stdout
    assert "no problems" in ran.stdout
    assert_higher(r"held-out reward: base (\S+), tuned (\S+)", ran.stdout)
    assert "step 8, prompt " in ran.stdout
    assert (folder / "curve.png").is_file()
    assert (folder / "adapter" / "adapter_config.json").is_file()
    assert_higher(r"the first token is 0 to 4: base (\S+), tuned (\S+)", ran.stdout)


def assert_higher(pattern: str, text: str) -> None:
    """Assert that ``text`` matches, and that the second matched number is more than 0.05 above the first."""
    found = re.search(pattern, text)
    assert found is not None, text
    assert float(found[2]) > float(found[1]) + 0.05


def test_the_notebook_is_stored_without_outputs_and_its_links_lead_to_files() -> None:
    for cell in cells("code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
    text = "".join("".join(cell["source"]) for cell in cells("markdown"))
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    assert [link for link in links if not (NOTEBOOK.parent / link).is_file()] == []
