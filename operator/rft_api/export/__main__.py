"""``python -m rft_api.export [--check]``: write the generated files, or fail when they drifted."""

import argparse
import difflib
import sys
from pathlib import Path

from rft_api.export.crd import crd_yaml
from rft_api.export.reference import reference


def generated_files() -> dict[str, str]:
    """Return the text of every generated file by its path in the repository."""
    crd = crd_yaml()
    return {
        "crds/rftjobs.rft.dev.yaml": crd,
        "charts/rft-operator/files/rftjobs.rft.dev.yaml": crd,
        "docs/reference/rftjob.md": reference(),
    }


def drift(root: Path) -> list[str]:
    """Return a diff for every file that is not what the models say."""
    diffs = []
    for name, wanted in generated_files().items():
        path = root / name
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        if found != wanted:
            lines = difflib.unified_diff(
                found.splitlines(), wanted.splitlines(), f"{name} (on disk)", f"{name} (models)", lineterm=""
            )
            diffs.append("\n".join(lines))
    return diffs


def main(arguments: list[str] | None = None) -> int:
    """Write or check the files; 1 when ``--check`` finds drift."""
    parser = argparse.ArgumentParser(prog="python -m rft_api.export", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a file differs")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="root of the repository")
    options = parser.parse_args(arguments)
    if options.check:
        diffs = drift(options.root)
        if diffs:
            print("\n".join(diffs), file=sys.stderr)
            print("generated files differ; run: python -m rft_api.export", file=sys.stderr)
        return 1 if diffs else 0
    for name, text in generated_files().items():
        path = options.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
