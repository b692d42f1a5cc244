"""A script that writes gigabytes checks the free disk space first.

If there is too little, the message names the folder and both sizes.
"""

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "disk.sh"


def need_disk(gib: int, *folders: Path) -> subprocess.CompletedProcess[str]:
    words = ["bash", "-c", '. "$0"; need_disk "$@"', str(SCRIPT), str(gib), "make test", *map(str, folders)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_enough_free_disk_says_nothing(tmp_path: Path) -> None:
    checked = need_disk(0, tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_too_little_free_disk_names_the_folder_and_both_sizes(tmp_path: Path) -> None:
    checked = need_disk(10**6, tmp_path)
    assert checked.returncode == 1
    assert f"make test needs 1000000 GiB of free disk in {tmp_path}; " in checked.stderr
    assert "RFT_DISK_GIB=0" in checked.stderr


def test_a_folder_that_does_not_exist_yet_is_looked_up_by_the_nearest_above_it(tmp_path: Path) -> None:
    checked = need_disk(10**6, tmp_path / "not" / "yet")
    assert f"in {tmp_path};" in checked.stderr
