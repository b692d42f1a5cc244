"""Prints the problems of a manifest, and the advice on it."""

from pathlib import Path

from rft_advice import advise
from rft_api import KIND
from rft_api.controls import one_line
from rft_api.loader import Document
from rft_api.validation import check
from rft_cli.local.foresight import foreseen
from rft_cli.local.manifest import Manifest, config_maps, name_of
from rft_cli.render.console import out
from rft_planner.overrides import contradiction


def is_valid(document: Document, documents: list[Document], path: Path) -> bool:
    """Print the problems and the advice of one RFTJob in these documents. Return whether the RFTJob is
    valid.
    """
    title = one_line(f"{document.source}: {KIND} {name_of(document.body)}")
    job, problems = check(document.body)
    warned: list[str] = []
    if job is not None:
        problems, warned = foreseen(
            Manifest(path, job, config_maps(documents, job.metadata.namespace)), document
        )
    if job is not None and not problems:
        overridden = contradiction(job.spec)
        said = [*warned, *map(str, advise(job.spec)), *([overridden] if overridden else [])]
        warnings = [f"  warning: {one_line(text)}" for text in said]
        out().print("\n".join([f"{title}: OK", *warnings]), markup=False)
        return True
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    out().print("\n".join([f"{title}: {count}", *(f"  {problem}" for problem in problems)]), markup=False)
    return False
