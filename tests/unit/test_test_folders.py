"""`make test` collects the tests that need a cluster from three folders only.

It takes half a minute less than collecting all tests.
"""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
SCRIPT = TESTS.parent / "scripts" / "test.sh"
MARKED = re.compile(r"pytest\.mark\.(cluster|e2e)\b")


def test_every_test_that_needs_a_cluster_is_in_a_folder_that_make_test_collects() -> None:
    line = re.search(r"^on_cluster=\((.*?)\)", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    assert line is not None
    folders = [TESTS.parent / name for name in line[1].split()]
    assert all(folder.is_dir() for folder in folders)
    marked = [path for path in TESTS.rglob("*.py") if MARKED.search(path.read_text(encoding="utf-8"))]
    assert len(marked) > 20, "the marks must be found"
    elsewhere = [path for path in marked if not any(path.is_relative_to(folder) for folder in folders)]
    assert elsewhere == []
