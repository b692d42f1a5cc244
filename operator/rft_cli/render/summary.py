"""Summary of a local run: the reward curve, the held-out evaluation and the adapter."""

from pathlib import Path

from pydantic import ValidationError

from rft_api.loader import UnreadableManifest, load_file
from rft_api.status import RFTJobStatus
from rft_cli.commands.curve import METRICS_FILE, STATUS_FILE, print_curve, read_metrics
from rft_cli.errors import UNREADABLE, UserError
from rft_cli.render.console import out
from rft_cli.render.evaluation import evaluation_table, verdict
from rft_cli.render.png import write_png

PNG_FILE = "reward.png"


def print_summary(folder: Path) -> None:
    """Print the summary, as far as there is data, and write ``reward.png``."""
    console = out()
    metrics = folder / METRICS_FILE
    points = read_metrics(metrics) if metrics.is_file() else []
    if points:
        console.print()
        print_curve(console, points)
        write_png(points, folder / PNG_FILE, folder.name)
    status = read_status(folder)
    if status.evaluation is not None:
        console.print()
        console.print(evaluation_table(status.evaluation))
        console.print(verdict(status.evaluation), markup=False)
    for advice in status.recommendations or []:
        console.print(f"advice: {advice.parameter}: {advice.message} [{advice.rule}]", markup=False)
    console.print()
    if points:
        console.print(f"curve:   {folder / PNG_FILE}", markup=False)
    if status.output is not None and status.output.adapter:
        console.print(f"adapter: {status.output.adapter}", markup=False)


def read_status(folder: Path) -> RFTJobStatus:
    """Return the status that the trainer wrote last; an empty one where there is none yet.

    Raises:
        UserError: the file exists but is not a status.
    """
    path = folder / STATUS_FILE
    if not path.is_file():
        return RFTJobStatus()
    try:
        documents = load_file(path)
        body = documents[0].body if documents else {}
        return RFTJobStatus.model_validate(body)
    except (UnreadableManifest, ValidationError) as error:
        raise UserError(f"{path}: is not a status that this version wrote", UNREADABLE) from error
