"""Refuses to resume a run if its rows, graders or model have changed since the run began."""

import hashlib
import io
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from rft_run import run_files
from rft_run.config import RunConfig
from rft_run.errors import InputsChanged, VolumeError
from rft_run.fingerprint import (
    Fingerprint,
    Text,
    changes,
    first_difference,
    line_digests,
    merged,
    model_digests,
    read_line_digests,
)
from rft_run.folder import RunFolder
from rft_trainer import files
from rft_trainer.data.source import readable

log = logging.getLogger(__name__)

MODEL, WARM_START = "spec.model", "spec.model.adapter"


def refuse_other_inputs(
    config: RunConfig, rows: Mapping[str, Path], models: Mapping[str, Path], check: Callable[[], None]
) -> None:
    """Raise InputsChanged if the inputs of the run have changed since its first results.

    Each attempt (start of the trainer) computes a fingerprint: digests of the rows, graders and models. It
    compares this with the fingerprint of earlier attempts, if one is saved, and then saves it. While the run
    has no results (evaluations, checkpoints or metrics), the inputs may change. After such a change the
    preflight, which checks the rewards before training, runs again.

    Also raises DataError if rows cannot be read, and VolumeError if the run's folder or a model's folder
    cannot be used.

    - ``rows``: the local file of each dataset. A key is the field of the manifest that names the dataset.
    - ``models``: the folders of the base model and of the adapter from which training starts. A key is the
      field of the manifest that names the model.
    - ``check``: raises Fenced if a newer attempt owns the folder.
    """
    folder = RunFolder(Path(config.run_dir))
    saved, now = _saved(folder), _taken(config, rows, models)
    begun = _has_begun(folder)
    before = saved if begun else None
    if before is not None:
        first = _changed_lines(folder, rows)
        if found := changes(before, now, first):
            raise InputsChanged(
                "these inputs changed since the run began, so its new and old results could not be compared:"
                f" {'; '.join(found)}. Put them back as they were, or start a new run"
            )
        now = merged(before, now)
    check()
    if not begun and saved != now:
        _forget_preflight(folder)
    elif begun and not folder.fingerprint.exists():
        _refuse_other_lines(folder, rows)
    check()
    for field, file in rows.items():
        if before is None or field not in before.rows:
            _write_lines(folder.line_digests_of(field), file)
    files.write_json(folder.fingerprint, now.dump())


def _refuse_other_lines(folder: RunFolder, rows: Mapping[str, Path]) -> None:
    """Raise InputsChanged if lines of a dataset changed, in a run whose fingerprint is missing.

    The digests of the lines may still exist. Other changes are not found, so a warning is logged.
    """
    for field, line in _changed_lines(folder, rows).items():
        raise InputsChanged(
            f"{field} changed since the run began: the first difference is in line {line}. Put the rows back"
            " as they were, or start a new run"
        )
    said = "%s does not exist, so changes of graders and models since the run began cannot be found"
    log.warning(said, folder.fingerprint)


def begun_with_commit(folder: RunFolder) -> str | None:
    """Return the commit of the Hugging Face repository from which the run first loaded its base model.

    None: the run has no results yet, or no commit was saved. The run continues with the weights of this
    commit, even if the model's branch or tag points to another commit now.
    """
    before = _saved(folder) if _has_begun(folder) else None
    return before.models.get(MODEL, {}).get("commit") if before is not None else None


def _has_begun(folder: RunFolder) -> bool:
    """Return whether the run's folder has results of an attempt: evaluations, checkpoints or metrics."""
    recorded = folder.evaluated_steps() or folder.steps_with_checkpoint()
    return bool(recorded) or (folder.metrics.exists() and folder.metrics.stat().st_size > 0)


def _forget_preflight(folder: RunFolder) -> None:
    """Remove the saved findings of the preflight, which checks the rewards before training.

    Then the preflight runs again, because the inputs have changed. Raises VolumeError.
    """
    with files.volume_errors(folder.preflight):
        folder.preflight.unlink(missing_ok=True)


def _saved(folder: RunFolder) -> Fingerprint | None:
    try:
        return Fingerprint.from_line(run_files.content(folder.fingerprint, run_files.EVALUATION_BYTES))
    except FileNotFoundError:
        return None  # the run began with a release that wrote no fingerprint
    except ValueError:
        log.warning("%s cannot be read, so changed inputs cannot be detected", folder.fingerprint)
    except OSError as error:
        raise VolumeError(f"{folder.fingerprint}: {error}") from error
    return None


def _taken(config: RunConfig, rows: Mapping[str, Path], models: Mapping[str, Path]) -> Fingerprint:
    try:
        digests = {field: model_digests(folder) for field, folder in models.items()}
    except OSError as error:
        raise VolumeError(str(error)) from error
    return Fingerprint(
        rows={field: _text(file) for field, file in rows.items()},
        graders={
            grader.name: grader.model_dump(
                mode="json", by_alias=True, exclude_defaults=True, exclude={"python": {"inline"}}
            )
            for grader in config.spec.scored_by
        },
        code=_code(config),
        models=digests,
    )


def _text(file: Path) -> Text:
    digest, count = hashlib.sha256(), 0
    with readable(file), file.open("rb") as stream:
        for line in line_digests(stream):
            digest.update(line)
            count += 1
    return Text(sha256=digest.hexdigest(), lines=count)


def _code(config: RunConfig) -> dict[str, list[str]]:
    """Return the digests (hexadecimal) of the lines of each grader's Python code, by the grader's name.

    Graders without Python code are left out, and so is code that cannot be read.
    """
    found = {}
    for grader in config.spec.scored_by:
        if grader.python is None:
            continue
        try:
            if grader.python.inline is not None:
                content = grader.python.inline.encode()
            else:
                content = Path((config.grader_code or {})[grader.name]).read_bytes()
        except (OSError, KeyError):
            log.warning("grader %s: its code cannot be read, so its changes are not detected", grader.name)
            continue
        found[grader.name] = [line.hex() for line in line_digests(io.BytesIO(content))]
    return found


def _changed_lines(folder: RunFolder, rows: Mapping[str, Path]) -> dict[str, int]:
    """Return the first line that changed after the run began, for each dataset in which one is found.

    The keys are the fields of the manifest that name the datasets.
    """
    return {field: line for field, file in rows.items() if (line := _first_line(folder, field, file))}


def _first_line(folder: RunFolder, field: str, file: Path) -> int | None:
    """Return the number, from 1, of the first line of a dataset that changed after the run began.

    None: no line changed, or the lines cannot be compared, because the file is binary or because the digests
    of its lines were not saved. ``field``: the field of the manifest that names the dataset.
    """
    if not run_files.is_own(known := folder.line_digests_of(field)):
        return None
    with readable(file), file.open("rb") as stream:
        return None if _is_binary(file) else first_difference(read_line_digests(known), line_digests(stream))


def _is_binary(file: Path) -> bool:
    """Return whether a file is binary, for example compressed: its first 1024 bytes have a zero byte."""
    with file.open("rb") as stream:
        return b"\0" in stream.read(1024)


def _write_lines(target: Path, file: Path) -> None:
    with readable(file), file.open("rb") as stream:
        files.write_pieces(target, line_digests(stream))
