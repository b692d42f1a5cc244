"""``rft rerun``: starts a copy of a job in the cluster in which some fields have new values."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rft_advice.rerun import NoSuchItem
from rft_advice.rerun import rerun as made_from
from rft_advice.suggest import left_out
from rft_api.controls import visible
from rft_api.dumper import dump
from rft_api.fields import UnknownField
from rft_api.loader import UnreadableManifest, load_documents
from rft_api.validation import check
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.options import Context, Namespace, connect
from rft_cli.render.console import err, out, reports_errors


@reports_errors
def rerun(
    name: Annotated[str, typer.Argument(help="The job in the cluster.")],
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A new value of a field; may be repeated."),
    ] = None,
    new_name: Annotated[
        str | None, typer.Option("--name", help="Name of the new job. If absent: made from the changes.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Write the manifest into this file, and start nothing."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the API server check everything and store nothing.")
    ] = False,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Start a copy of a job in the cluster with new values of fields, such as --set training.loraRank=16.

    The old job becomes the baseline of the new job, for rft compare. Both jobs use the same ConfigMaps,
    Secrets and claims. spec.output is left out unless --set changes it.

    Exit code 1: the new job is not valid, or exists already; 2: --set cannot be read.
    """
    cluster = connect(context, namespace)
    earlier = cluster.job(name)
    body = _changed(earlier, dict(_value(pair) for pair in values or []), new_name)
    called = body["metadata"]["name"]
    if note := left_out(earlier, body):
        err().print(f"{note}; --set output.FIELD=VALUE names another destination", markup=False)
    if output is not None:
        _write(body, output)
        return
    if any(job["metadata"]["name"] == called for job in cluster.jobs()):
        raise UserError(f"{called}: exists already; give the new job another name with --name", INVALID)
    with cluster.applying(dry_run=dry_run) as apply:
        out().print(f"RFTJob {called} {apply(body)}{' (dry run)' if dry_run else ''}", markup=False)
    out().print(f"afterwards: rft compare {name} {called}", markup=False)


def _changed(job: dict[str, Any], values: dict[str, Any], name: str | None) -> dict[str, Any]:
    try:
        body = made_from(job, values, name)
    except (UnknownField, NoSuchItem) as error:
        raise UserError(f"--set: {error.args[0]}", UNREADABLE) from error
    _, problems = check(body)
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(f"{body['metadata']['name']}: is not valid:\n{lines}", INVALID)
    return body


def _value(pair: str) -> tuple[str, Any]:
    """Split a text such as ``training.loraRank=16`` into the path of a field and its new value.

    The value is parsed as YAML, as in a manifest. Raises UserError if ``pair`` does not have this form.
    """
    field, equals, text = pair.partition("=")
    if not field or not equals:
        raise UserError(f"--set {pair}: must be FIELD=VALUE, such as training.loraRank=16", UNREADABLE)
    try:
        return field, load_documents(f"value: {text}")[0].body["value"]
    except (UnreadableManifest, LookupError) as error:
        raise UserError(f"--set {pair}: the value is not YAML; put a text into quotes", UNREADABLE) from error


def _write(body: dict[str, Any], output: Path) -> None:
    try:
        output.write_text(visible(dump(body)), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written: {error.strerror}", UNREADABLE) from error
    out().print(f"written to {output}", markup=False)
