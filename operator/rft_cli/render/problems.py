"""Prints the problems of an RFTJob in a manifest, or the warnings about it if it is valid."""

from pathlib import Path

from rft_advice import advise_job
from rft_advice.urgency import unknown
from rft_api import KIND
from rft_api.controls import one_line
from rft_api.job import RFTJob
from rft_api.loader import Document
from rft_api.validation import check
from rft_cli.local.foresight import foreseen, misplaced
from rft_cli.local.manifest import Manifest, config_maps, name_of, on_this_machine
from rft_cli.render.console import out
from rft_planner.overrides import contradiction

MOST_WARNINGS = 3
"""Maximum number of warnings about a valid RFTJob that are printed without the option ``--all``."""
OF_A_CLUSTER = frozenset(("storage-ephemeral",))
"""Ids of rules whose advice only concerns a run in a cluster. For a run on this machine it is not printed."""


def is_valid(
    document: Document,
    documents: list[Document],
    path: Path,
    *,
    local: bool = False,
    everything: bool = False,
) -> bool:
    """Check an RFTJob, and print its problems. If it has none, print warnings. Return whether it is valid.

    - ``document``: the RFTJob, as it is in the manifest.
    - ``documents``: all objects in the file of the manifest, such as ConfigMaps that the RFTJob names.
    - ``path``: the path of this file.
    - ``local``: whether the RFTJob is for ``rft run``, which needs no storage.
    - ``everything``: whether to print all warnings, not only the three most important ones.
    """
    document = on_this_machine(document) if local else document
    title = one_line(f"{document.source}: {KIND} {name_of(document.body)}")
    job, problems = check(document.body)
    warned: list[str] = []
    if job is None:
        problems = (*misplaced(document.body), *problems)  # first, because they often explain the others
    else:
        problems, warned = foreseen(
            Manifest(path, job, config_maps(documents, job.metadata.namespace)), document
        )
    if job is not None and not problems:
        said = [*warned, *_advice(job, local)]
        shown = said if everything else said[:MOST_WARNINGS]
        lines = [f"  warning: {one_line(text)}" for text in shown]
        if len(shown) < len(said):
            lines.append(f"  {len(said) - len(shown)} more warnings: --all prints them too")
        out().print("\n".join([f"{title}: OK", *lines]), markup=False)
        return True
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    lines = [f"  {problem}" for problem in problems]
    if any(problem.path == "spec.storage" and "is required" in problem.message for problem in problems):
        lines.append("  for rft run, which needs no storage, check with --local")
    out().print("\n".join([f"{title}: {count}", *lines]), markup=False)
    return False


def _advice(job: RFTJob, local: bool) -> list[str]:
    """Return the warnings about a valid job as texts, the most important first.

    ``local`` says whether to leave out advice that only concerns a run in a cluster.
    """
    overridden = contradiction(job.spec)
    given = [advice for advice in advise_job(job) if not (local and advice.rule in OF_A_CLUSTER)]
    return [
        *unknown(job.metadata.annotations),
        *([overridden] if overridden else []),
        *map(str, given),
    ]
