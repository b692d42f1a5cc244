"""``rft explain``: shows what a field is for, and when to change it."""

from typing import Annotated

import typer

from rft_advice.explain import explain as explained
from rft_advice.explain import overview
from rft_api.fields import UnknownField
from rft_cli.errors import INVALID, UserError
from rft_cli.render.console import out, reports_errors


@reports_errors
def explain(
    field: Annotated[
        str | None,
        typer.Argument(help="A field, such as sampling.topK. If absent: the nine tuned parameters."),
    ] = None,
) -> None:
    """Explain a field: its default, range, effects of low and high values, when to change it, and advice.

    Exit code 1: there is no such field.
    """
    try:
        text = explained(field) if field else overview()
    except UnknownField as error:
        known = "" if error.meant else "; rft explain without a field lists those that are tuned most"
        raise UserError(f"{error}{known}", INVALID) from error
    out().print(text, markup=False)
