"""``rft submit``: checks manifests and applies them to a cluster."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rft_api.controls import one_line
from rft_api.loader import Document
from rft_cli.errors import INVALID, UserError
from rft_cli.local.manifest import folder_of, is_job, nothing_in, read
from rft_cli.local.own_files import with_rows
from rft_cli.options import Context, Namespace, connect
from rft_cli.render.console import err, out, reports_errors
from rft_cli.render.jobs import watched
from rft_cli.render.problems import is_valid

if TYPE_CHECKING:
    from rft_cli.cluster.client import Applier


@reports_errors
def submit(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Manifests; - reads stdin.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the API server check everything and store nothing.")
    ] = False,
    force_conflicts: Annotated[
        bool, typer.Option("--force-conflicts", help="Take over fields that another manager has set.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Print all warnings, not only three.")] = False,
    send_files_from: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="One more folder whose files may be sent; may be repeated."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--watch", "-w", help="After submitting, follow the job until it ends.")
    ] = False,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Check every RFTJob in the files and, if all are valid, apply all objects in the files to a cluster.

    The check is the same as that of rft validate. The objects are applied in their order, by server-side
    apply. The files may also have objects of other kinds, such as a ConfigMap with the rows.

    A file on this machine that a job names by dataset.uri or python.file becomes a ConfigMap. If the file is
    outside of the manifest's folder, --send-files-from must allow it.

    Exit code 1: something is wrong or refused; 2: a file cannot be read. With --watch: after the objects are
    applied, the exit code of rft watch.
    """
    allowed = [folder.expanduser().resolve() for folder in send_files_from or []]
    of_files = {path: read(path, allowed) for path in files}
    documents = [document for found in of_files.values() for document in found]
    jobs = [document for document in documents if is_job(document.body)]
    if not jobs:
        raise UserError("; ".join(nothing_in(found, path) for path, found in of_files.items()))
    if wait and (len(jobs) > 1 or dry_run):
        raise UserError("--watch follows one job: give one RFTJob, and leave out --dry-run", INVALID)
    verdicts = [
        is_valid(document, documents, path, everything=everything)
        for path, found in of_files.items()
        for document in found
        if is_job(document.body)
    ]
    if not all(verdicts):
        err().print("error: nothing was submitted; correct the problems first", markup=False)
        raise typer.Exit(INVALID)
    documents = [
        each
        for path, found in of_files.items()
        for document in found
        for each in _for_a_cluster(document, folder_of(path), allowed)
    ]
    for document in documents:
        _require_name(document, namespace)
    # Watch in the job's namespace, which may not be the context's default.
    cluster = connect(context, namespace or jobs[0].body["metadata"].get("namespace"))
    with cluster.applying(dry_run=dry_run, force_conflicts=force_conflicts) as apply:
        for document in documents:
            _apply(document, apply, " (dry run)" if dry_run else "")
    if wait:
        raise typer.Exit(watched(lambda: cluster.changes(jobs[0].body["metadata"]["name"]), out()))


def _for_a_cluster(document: Document, folder: Path, allowed: list[Path]) -> list[Document]:
    return with_rows(document, folder, (folder, *allowed)) if is_job(document.body) else [document]


def _require_name(document: Document, namespace: str | None) -> None:
    for field in ("apiVersion", "kind"):
        if not isinstance(document.body.get(field), str):
            raise UserError(f"{document.source}: {field}: is missing; every object needs it")
    metadata = document.body.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise UserError(f"{document.source}: metadata.name: is missing; every applied object needs a name")
    own = metadata.get("namespace")
    if namespace is not None and own not in (None, namespace):
        raise UserError(
            f"{document.source}: metadata.namespace: is {own!r}, but --namespace is {namespace!r}; leave one"
            " of them out"
        )


def _apply(document: Document, apply: "Applier", remark: str) -> None:
    body = dict(document.body)
    try:
        done = apply(body)
    except UserError as error:
        raise UserError(f"{document.source}: {error}", error.exit_code) from error
    out().print(one_line(f"{body['kind']} {body['metadata']['name']} {done}{remark}"))
