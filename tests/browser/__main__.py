"""Writes screenshots of a page at two widths: ``python -m tests.browser PAGE FOLDER NAME [--dark]``."""

import argparse
from pathlib import Path

from tests.browser.chromium import save, visit

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("page", type=Path)
parser.add_argument("folder", type=Path)
parser.add_argument("name")
parser.add_argument("--dark", action="store_true")
chosen = parser.parse_args()
save(visit(chosen.page.resolve().as_uri(), (390, 1280), dark=chosen.dark), chosen.folder, chosen.name)
