"""All readers of a dataset get the same rows, in every format of the dataset.

The trainer reads a small file as a whole, and a large file line by line. ``rft plan`` reads a file too.
"""

import csv
import gzip
import io
import json
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from rft_api.sources import Dataset
from rft_cli.errors import UserError
from rft_cli.local.rows import count
from rft_run.errors import DataError, Preempted
from rft_run.rows import RowLayout
from rft_run.state import Position
from rft_trainer.data import opening
from rft_trainer.data.opening import Prompts, open_rows
from tests.trainer.data_support import WordTokenizer
from tests.trainer.loop_support import config

NUMBERS = range(600)
COLUMNS = {"prompt": "question", "answer": "solution"}


def as_csv() -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["question", "solution"])
    writer.writerows([f'say "row",\n {number}', number] for number in NUMBERS)
    return text.getvalue().encode()


def as_objects(of: Any) -> bytes:
    return "\n".join(json.dumps(of(number)) for number in NUMBERS).encode()


def sharegpt(number: int) -> dict[str, Any]:
    asked = {"from": "human", "value": f"say row {number}"}
    return {"conversations": [asked, {"from": "gpt", "value": str(number)}]}


FORMATS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "csv": (as_csv(), {"format": "csv", "columns": COLUMNS}),
    "csv in gzip": (gzip.compress(as_csv()), {"format": "csv", "columns": COLUMNS}),
    "questions": (as_objects(lambda n: {"question": f"say row {n}", "solution": n}), {"columns": COLUMNS}),
    "sharegpt": (as_objects(sharegpt), {"format": "sharegpt"}),
}


def opened(
    folder: Path, content: bytes, fields: dict[str, Any], stack: ExitStack, stop: bool = False
) -> Prompts:
    asked = config(Path("model"), folder)
    dataset = Dataset.model_validate({"uri": "./rows", **fields}, by_alias=True)
    asked = asked.model_copy(update={"spec": asked.spec.model_copy(update={"dataset": dataset})})
    Path(asked.dataset_path).write_bytes(content)
    return open_rows(asked, stack, lambda: stop).rendered(WordTokenizer(), None, 10)


@pytest.mark.parametrize("limit", [1000, 32 << 20], ids=["by line", "whole"])
@pytest.mark.parametrize("name", FORMATS)
def test_each_format_gives_every_row_once_and_a_resumed_run_the_same(
    name: str, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "WHOLE_BYTES", limit)
    content, fields = FORMATS[name]
    with ExitStack() as stack:
        prompts = opened(tmp_path, content, fields, stack)
        trained = [one.prompt.row for one in prompts.train.read(Position()) if one.prompt is not None]
        rows = [*trained, *(prompt.row for prompt in prompts.heldout)]
        assert sorted(int(row.fields["answer"]) for row in rows) == list(NUMBERS)
        assert {
            " ".join(row.messages[0]["content"].replace('"', "").replace(",", "").split()) for row in rows
        } == {f"say row {number}" for number in NUMBERS}
        again = opened(tmp_path, content, fields, stack)
        assert [one.prompt for one in again.train.read(Position())] == [
            one.prompt for one in prompts.train.read(Position())
        ]


@pytest.mark.parametrize("name", FORMATS)
def test_rft_plan_counts_the_same_rows(name: str) -> None:
    content, fields = FORMATS[name]
    layout = RowLayout.of(Dataset.model_validate({"uri": "./rows", **fields}, by_alias=True))
    assert count(io.BytesIO(content), "rows", layout).number == len(NUMBERS)


@pytest.mark.parametrize("limit", [10, 32 << 20], ids=["by line", "whole"])
@pytest.mark.parametrize("content", [b'{"question": "a"}\n' * 70, b"PAR1", b"question,answer\na,b\n"])
def test_trainer_and_rft_refuse_a_file_with_the_same_sentence(
    content: bytes, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "WHOLE_BYTES", limit)
    with ExitStack() as stack, pytest.raises(DataError) as trainer:
        opened(tmp_path, content, {}, stack)
    place = config(Path("model"), tmp_path).dataset_path
    with pytest.raises(UserError) as rft:
        count(io.BytesIO(content), place)
    assert str(trainer.value) == str(rft.value)
    assert "; line" not in str(trainer.value)


def test_a_broken_row_of_a_csv_is_named_by_its_line_in_the_file(tmp_path: Path) -> None:
    content = b'question,solution\n"one\ntwo",1\nthree,\n'
    with ExitStack() as stack, pytest.raises(DataError, match=r"^line 4: field answer is missing"):
        opened(tmp_path, content, {"format": "csv", "columns": COLUMNS}, stack)


def test_an_empty_cell_is_not_filled_from_a_column_with_the_name_of_the_field(tmp_path: Path) -> None:
    content = b"prompt,question,solution\nold text,,1\n" * 70
    said = r"^line 2: .*both messages and prompt are missing"
    with ExitStack() as stack, pytest.raises(DataError, match=said):
        opened(tmp_path, content, {"format": "csv", "columns": COLUMNS}, stack)


def test_a_file_that_was_changed_is_unpacked_again_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content, fields = FORMATS["csv"]
    with ExitStack() as stack, caplog.at_level(logging.WARNING):
        opened(tmp_path, content, fields, stack)
        opened(tmp_path, content.replace(b"say", b"tell"), fields, stack)
    assert "changed since its last conversion" in caplog.text


def test_a_stop_ends_the_unpacking(tmp_path: Path) -> None:
    with ExitStack() as stack, pytest.raises(Preempted, match="while the dataset was unpacked"):
        opened(tmp_path, *FORMATS["csv"], stack, stop=True)
    assert not list(tmp_path.rglob("unpacked*"))
