"""Prints the problems of a manifest, and the advice on it."""

from pathlib import Path

from rft_advice import advise_job
from rft_advice.urgency import unknown
from rft_api import KIND
from rft_api.controls import one_line
from rft_api.job import RFTJob
from rft_api.loader import Document
from rft_api.validation import check
from rft_cli.local.foresight import foreseen
from rft_cli.local.manifest import Manifest, config_maps, name_of, on_this_machine
from rft_cli.render.console import out
from rft_planner.overrides import contradiction

MOST_WARNINGS = 3
"""Maximum number of warnings that are printed without ``--all``."""
OF_A_CLUSTER = frozenset(("storage-ephemeral",))
"""Ids of advice that only concerns a run in a cluster. It is not printed for a run on this machine."""


def is_valid(
    document: Document,
    documents: list[Document],
    path: Path,
    *,
    local: bool = False,
    everything: bool = False,
) -> bool:
    """Print the problems of an RFTJob. If it has none, print the advice on it. Return whether it is valid.

    - ``document``: the RFTJob.
    - ``documents``: all objects in the file of the RFTJob.
    - ``path``: the path of this file.
    - ``local``: whether the RFTJob is for ``rft run``, which needs no storage.
    - ``everything``: whether to print all advice, not only the ``MOST_WARNINGS`` most important pieces.
    """
    document = on_this_machine(document) if local else document
    title = one_line(f"{document.source}: {KIND} {name_of(document.body)}")
    job, problems = check(document.body)
    warned: list[str] = []
    if job is not None:
        problems, warned = foreseen(
            Manifest(path, job, config_maps(documents, job.metadata.namespace)), document
        )
    if job is not None and not problems:
        said = [*warned, *_advice(job, local)]
        shown = said if everything else said[:MOST_WARNINGS]
        lines = [f"  warning: {one_line(text)}" for text in shown]
        if len(shown) < len(said):
            lines.append(f"  {len(said) - len(shown)} more: --all prints them, too")
        out().print("\n".join([f"{title}: OK", *lines]), markup=False)
        return True
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    out().print("\n".join([f"{title}: {count}", *(f"  {problem}" for problem in problems)]), markup=False)
    return False


def _advice(job: RFTJob, local: bool) -> list[str]:
    """Return the warnings about a valid job as texts, the most important first.

    ``local``: whether to leave out the advice in ``OF_A_CLUSTER``.
    """
    overridden = contradiction(job.spec)
    given = [advice for advice in advise_job(job) if not (local and advice.rule in OF_A_CLUSTER)]
    return [
        *unknown(job.metadata.annotations),
        *([overridden] if overridden else []),
        *map(str, given),
    ]
