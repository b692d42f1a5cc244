"""A run works under any user that OpenShift may assign, with group 0 and the group of the volumes."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainer import loop_support

ROOT = Path(__file__).parents[2]
USER, GROUP = 1000730000, 1000730001


@pytest.fixture
def volumes() -> Iterator[Path]:
    """Yield a folder that every user may enter. The test makes a pod's volumes in this folder."""
    folder = Path(tempfile.mkdtemp(prefix="rft-random-user-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def volume(path: Path) -> Path:
    """Return a new folder like a volume with ``fsGroup``: root owns it, and the group may write."""
    path.mkdir()
    os.chown(path, 0, GROUP)
    path.chmod(0o2775)
    return path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_without_a_name_can_write_the_run_and_what_it_caches(
    character_model: Path, volumes: Path
) -> None:
    runs, scratch, temporary = (volume(volumes / name) for name in ("runs", "scratch", "tmp"))
    shutil.copytree(character_model, volumes / "model")
    config = loop_support.config(volumes / "model", volumes / "given")
    config = config.model_copy(update={"run_dir": str(runs / "team" / "tiny"), "scratch_dir": str(scratch)})
    (volumes / "run.json").write_text(config.model_dump_json(by_alias=True, exclude_none=True))
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *map(str, (ROOT / "operator", ROOT / "trainer-image"))]),
        "HOME": str(scratch),
        "TMPDIR": str(temporary),
        "USER": "trainer",
        "OMP_NUM_THREADS": "1",
    }
    ran = subprocess.run(
        [sys.executable, "-m", "tests.trainer.random_user", str(USER), str(GROUP), str(volumes / "run.json")],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=290,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    written = [path for path in runs.rglob("*") if path.is_file()]
    assert {path.stat().st_uid for path in written} == {USER}
    assert {path.stat().st_gid for path in written} == {GROUP}
    metrics = (runs / "team" / "tiny" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics] == [1, 2, 3]
