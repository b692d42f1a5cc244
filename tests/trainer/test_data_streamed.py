"""Training on large files.

An epoch has every row once. A resumed run gets the same batches as an uninterrupted run. Invalid rows are
reported.
"""

import itertools
import json
import logging
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_run.errors import DataError
from rft_run.state import Position
from rft_trainer.data import opening
from rft_trainer.data.lines import Lines, index_lines
from rft_trainer.data.opening import Prompts, open_rows
from rft_trainer.data.order import permuted
from rft_trainer.data.rendering import Renderer
from rft_trainer.data.streamed import Streamed
from tests.trainer.data_support import WordTokenizer
from tests.trainer.loop_support import config

BUDGET = 6
"""Largest allowed number of tokens in a prompt."""
ROOM = (1, 2, 5.0, 100)
"""Arguments of ``steps_left``: epochs, rollouts of each prompt, tokens of a completion, tokens of a step."""


def text(number: int, prompt: str = "what is row") -> str:
    message = {"role": "user", "content": f"{prompt} {number}"}
    return json.dumps({"messages": [message], "answer": str(number)})


@pytest.fixture(autouse=True)
def small_files_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "WHOLE_BYTES", 1000)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def opened(folder: Path, texts: list[str], stack: ExitStack, **changes: Any) -> Prompts:
    """Write ``texts`` as the lines of a dataset. Open the dataset as a run does.

    The tokenizer makes one token of each word.
    """
    asked = config(Path("model"), folder).model_copy(update=changes)
    Path(asked.dataset_path).write_text("\n".join(texts))
    return open_rows(asked, stack, lambda: False).rendered(WordTokenizer(), None, BUDGET)


def epoch(prompts: Prompts, position: Position) -> list[int]:
    """Return the line numbers of the rows from a position to the end of the epoch."""
    reached = prompts.train.read(position)
    return [one.prompt.row.line for one in reached if one.prompt is not None]


@given(st.integers(1, 300), st.text(max_size=5))
def test_the_order_has_every_row_once(count: int, key: str) -> None:
    assert sorted(permuted(index, count, key) for index in range(count)) == list(range(count))


def test_the_order_depends_on_the_key_and_separates_neighbours() -> None:
    orders = [[permuted(index, 1000, f"order/{seed}") for index in range(1000)] for seed in range(2)]
    assert orders[0] != orders[1]
    for order in orders:
        gaps = [abs(one - other) for one, other in itertools.pairwise(order)]
        # Two random places are a third of the rows apart on average. With 999 gaps this is precise to a few
        # rows.
        assert 300 < sum(gaps) / len(gaps) < 367
    with pytest.raises(IndexError):
        permuted(1000, 1000, "")


@given(st.lists(st.binary(max_size=12), max_size=20))
def test_the_index_finds_the_same_lines_as_a_split_at_newlines(
    tmp_path_factory: pytest.TempPathFactory, raw: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    data = b"\n".join(raw)
    (folder / "rows").write_bytes(data)
    index_lines(folder / "rows", folder / "index")
    lines = Lines(folder / "rows", folder / "index")
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    found = [lines[number].removesuffix(b"\n") for number in range(1, len(lines) + 1)]
    lines.close()
    assert found[1:] == expected[1:]
    assert found[:1] == [line.removeprefix(b"\xef\xbb\xbf") for line in expected[:1]]


def test_an_epoch_has_every_row_once_except_the_held_out_ones(tmp_path: Path, stack: ExitStack) -> None:
    prompts = opened(tmp_path, [text(number) for number in range(700)], stack)
    held_out = {prompt.row.line for prompt in prompts.heldout}
    first, second = epoch(prompts, Position(1)), epoch(prompts, Position(2))
    assert len(held_out) == 256
    assert sorted(first) == sorted(second) == sorted(set(range(1, 701)) - held_out)
    assert first != second


def test_a_resumed_run_has_the_same_batches_as_an_uninterrupted_one(tmp_path: Path, stack: ExitStack) -> None:
    texts = [text(number, "far too long a prompt" if number % 7 == 0 else "row") for number in range(600)]
    texts[3::50] = [""] * len(texts[3::50])
    prompts = opened(tmp_path, texts, stack)
    position, lines, dropped = Position(), [], 0
    while (batch := prompts.train.batch(position, *ROOM)).prompts:
        if position.offset % 5 == 0:
            assert opened(tmp_path, texts, stack).train.batch(position, *ROOM) == batch
        lines += [prompt.row.line for prompt in batch.prompts]
        position, dropped = batch.after, dropped + batch.dropped
        assert sum(2 * (len(prompt.token_ids) + 5) for prompt in batch.prompts) <= 100
    dropped += batch.dropped
    assert lines == epoch(prompts, Position())
    assert dropped + prompts.dropped == len([number for number in range(0, 600, 7) if texts[number]])
    assert position == Position(2)


def test_rows_with_a_held_out_prompt_are_left_out(tmp_path: Path, stack: ExitStack) -> None:
    prompts = opened(tmp_path, [text(number % 400) for number in range(1200)], stack)
    held_out = {prompt.row.key for prompt in prompts.heldout}
    reached = [one.prompt.row.key for one in prompts.train.read(Position()) if one.prompt is not None]
    assert len(held_out) == 256
    assert len(reached) == 3 * (400 - 256)
    assert held_out.isdisjoint(reached)


def test_the_held_out_rows_do_not_depend_on_the_seed(tmp_path: Path, stack: ExitStack) -> None:
    texts = [text(number) for number in range(700)]
    one = opened(tmp_path, texts, stack)
    plain = config(Path("model"), tmp_path)
    other = opened(tmp_path, texts, stack, effective=plain.effective.model_copy(update={"seed": 99}))
    assert one.heldout == other.heldout
    assert epoch(one, Position()) != epoch(other, Position())


def test_prompts_of_a_separate_evaluation_dataset_are_left_out_too(tmp_path: Path, stack: ExitStack) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text("\n".join(text(number) for number in range(40)))
    texts = [text(number) for number in range(700)]
    prompts = opened(tmp_path, texts, stack, evaluation_path=str(own))
    assert [prompt.row.line for prompt in prompts.heldout] == list(range(1, 41))
    assert sorted(epoch(prompts, Position())) == list(range(41, 701))


def test_broken_lines_in_the_first_part_are_all_reported_before_the_start(
    tmp_path: Path, stack: ExitStack
) -> None:
    texts = [text(number) for number in range(700)]
    texts[2], texts[4], texts[699] = "{", "[]", "{"
    with pytest.raises(DataError) as caught:
        opened(tmp_path, texts, stack)
    assert str(caught.value).startswith("line 3: not JSON")
    assert "line 5: a row is a JSON object" in str(caught.value)


def test_later_broken_lines_are_reported_when_the_first_is_reached(tmp_path: Path, stack: ExitStack) -> None:
    texts = [text(number) for number in range(900)]
    prompts = opened(tmp_path, texts, stack)
    order = epoch(prompts, Position())
    late = [line for line in order[100:] if line > 50][:2]
    for line in late:
        texts[line - 1] = '{"messages": []}'
    prompts = opened(tmp_path, texts, stack)
    with pytest.raises(DataError) as caught:
        epoch(prompts, Position())
    assert [one.split(":")[0] for one in str(caught.value).split("; ")] == [f"line {line}" for line in late]
    assert "messages is empty" in str(caught.value)


def test_a_file_with_too_few_prompts_raises(tmp_path: Path, stack: ExitStack) -> None:
    with pytest.raises(DataError, match="have only 20 different prompts; at least 128 are needed"):
        opened(tmp_path, [text(number % 20) for number in range(3000)], stack)


def test_if_every_prompt_is_too_long_the_error_names_the_shortest(tmp_path: Path, stack: ExitStack) -> None:
    with pytest.raises(DataError, match=r"longer than 6 tokens \(the shortest has 8\)"):
        opened(tmp_path, [text(number, "a b c d e f") for number in range(700)], stack)


def test_the_estimated_steps_take_too_long_prompts_into_account(
    tmp_path: Path, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [text(number, "a b c d e f" if number % 2 else "row") for number in range(4000)]
    with caplog.at_level(logging.WARNING):
        train = opened(tmp_path, texts, stack).train
    assert "of the prompts are longer than 6 tokens" in caplog.text
    assert train.mean_length == 3
    # Half of the 4000 rows are too long. A step of 100 tokens has six prompts: each takes 2 × (3 + 5) tokens.
    assert train.steps_left(Position(), *ROOM) == pytest.approx(2000 / 6, rel=0.15)
    assert train.steps_left(Position(2), *ROOM) == 0


def test_the_index_is_created_once_and_again_after_a_change_of_the_file(tmp_path: Path) -> None:
    rows, index = tmp_path / "rows", tmp_path / "index"
    rows.write_bytes(b"a\nb\n")
    assert not index_lines(rows, index)
    made = index.stat().st_mtime_ns
    assert not index_lines(rows, index)
    assert index.stat().st_mtime_ns == made
    rows.write_bytes(b"a\nb\nc\n")
    os.utime(rows, ns=(1, 1))
    assert index_lines(rows, index)
    lines = Lines(rows, index)
    assert len(lines) == 3
    lines.close()


def test_a_file_that_changes_during_a_run_raises(tmp_path: Path, stack: ExitStack) -> None:
    texts = [text(number) for number in range(700)]
    prompts = opened(tmp_path, texts, stack)
    assert isinstance(prompts.train, Streamed)
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(reversed([one + " " * random.Random(1).randrange(9) for one in texts]))[5:])
    with pytest.raises(DataError, match=r"was changed during the run|became shorter"):
        epoch(prompts, Position())


def test_a_row_that_the_chat_template_refuses_is_reported_with_its_line(tmp_path: Path) -> None:
    rows, index = tmp_path / "rows", tmp_path / "index"
    rows.write_text(text(1, "refuse") + "\n")
    index_lines(rows, index)
    lines = Lines(rows, index)
    train = Streamed(lines, {}, Renderer(WordTokenizer(), None), BUDGET, (), 1)
    with pytest.raises(
        DataError, match="line 1: the chat template refuses these messages: roles must alternate"
    ):
        train.first(1)
    lines.close()


def test_a_large_file_takes_little_memory(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "WHOLE_BYTES", 4 << 20)
    asked = config(Path("model"), tmp_path)
    block = "".join(f"{text(number, 'row ' + 'of words ' * 40)}\n" for number in range(20_000)).encode()
    with Path(asked.dataset_path).open("wb") as file:
        for _ in range(200_000_000 // len(block)):
            file.write(block)
    before = most_resident(reset=True)
    prompts = open_rows(asked, stack, lambda: False).rendered(WordTokenizer(), None, 100)
    batch = prompts.train.batch(Position(), 1, 2, 5.0, 20_000)
    assert prompts.train.rows > 400_000
    assert len(batch.prompts) > 50
    assert most_resident() - before < 100e6


def most_resident(reset: bool = False) -> int:
    """Return the peak memory of this process in bytes, since its start or the last call with ``reset``."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
