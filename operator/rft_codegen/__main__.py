"""Writes the generated files: ``python -m rft_codegen``.

With ``--check`` it writes nothing. It checks whether the files are up to date, and whether the rules in CEL
are valid.
"""

import argparse
import difflib
import sys
from functools import cache
from pathlib import Path

from rft_codegen.advice_doc import advice_markdown
from rft_codegen.cel_lint import lint
from rft_codegen.crd import crd_yaml, object_schema
from rft_codegen.migration import migration_pages
from rft_codegen.monitoring import dashboard_json, monitoring_markdown, rules_yaml
from rft_codegen.planning_table import plans_markdown
from rft_codegen.reference import reference
from rft_codegen.troubleshooting import troubleshooting_markdown
from rft_codegen.validations import all_texts


@cache
def generated_files() -> dict[str, str]:
    """Return the correct text of every generated file. The keys are paths relative to the repository root."""
    crd = crd_yaml()
    return {
        "crds/rftjobs.rft.dev.yaml": crd,
        "charts/rft-operator/files/rftjobs.rft.dev.yaml": crd,
        "charts/rft-operator/files/dashboard.json": dashboard_json(),
        "charts/rft-operator/files/rules.yaml": rules_yaml(),
        "docs/reference/advice.md": advice_markdown(),
        "docs/reference/monitoring.md": monitoring_markdown(),
        "docs/reference/plans.md": plans_markdown(),
        "docs/reference/rftjob.md": reference(),
        **migration_pages(),
        "docs/reference/troubleshooting.md": troubleshooting_markdown(),
    }


def drift(root: Path) -> list[str]:
    """Compare the generated files under ``root`` with their wanted texts. Return a unified diff for each file
    that differs or is missing.
    """
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


def cel_problems() -> list[str]:
    """Check all validation rules of the CRD, which are written in CEL, against Kubernetes 1.25. Return a
    message for each problem.
    """
    schema = object_schema()
    return [problem for text in all_texts() for problem in lint(text, schema)]


def main(arguments: list[str] | None = None) -> int:
    """Write the generated files, or only check them with ``--check``. Return the exit code: 1 if the check
    finds a problem, else 0.
    """
    parser = argparse.ArgumentParser(prog="python -m rft_codegen", description=__doc__)
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit with 1 if a file is out of date or a rule in CEL is invalid",
    )
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="root of the repository")
    options = parser.parse_args(arguments)
    if options.check:
        diffs = drift(options.root)
        if diffs:
            print("\n".join(diffs), file=sys.stderr)
            print("generated files are out of date; run: python -m rft_codegen", file=sys.stderr)
        problems = cel_problems()
        print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
        return 1 if diffs or problems else 0
    for name, text in generated_files().items():
        path = options.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
