"""All rows of a dataset are checked, split by prompt into training and held-out rows, and rendered."""

import json
import logging
from pathlib import Path

import pytest

from rft_api.graders import ExactMatch, Grader, Math, Numeric, StringCheck, TextSimilarity
from rft_api.lifecycle import Evaluation
from rft_graders.row_fields import required_fields
from rft_run.errors import ConfigurationError, DataError
from rft_trainer.data.rows import Row, prompt_key
from rft_trainer.data.whole import load_rows, render, split, without
from tests.trainer.data_support import WordTokenizer

USER = {"role": "user", "content": "What is 1 + 1?"}


def written(folder: Path, *lines: object) -> str:
    path = folder / "rows.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return str(path)


def row(number: int, prompt: str | None = None) -> Row:
    messages = [{"role": "user", "content": prompt if prompt is not None else f"question {number}"}]
    return Row(number, messages, {"answer": number}, prompt_key(messages))


def test_a_row_keeps_its_line_messages_and_other_fields(tmp_path: Path) -> None:
    rows = load_rows(written(tmp_path, "", {"messages": [USER], "answer": "2", "topic": "sums"}))
    assert [(r.line, r.messages, r.fields) for r in rows] == [(2, [USER], {"answer": "2", "topic": "sums"})]


def test_rows_with_the_same_prompt_have_the_same_key_in_any_json_format(tmp_path: Path) -> None:
    swapped = '{"answer": 3, "messages": [{"content": "What is 1 + 1?", "role": "user"}]}'
    first, second = load_rows(written(tmp_path, {"messages": [USER]}, swapped))
    assert first.key == second.key


def test_a_unicode_line_separator_does_not_end_a_row(tmp_path: Path) -> None:
    text = json.dumps({"messages": [{"role": "user", "content": "a\u2028b"}]}, ensure_ascii=False)
    assert load_rows(written(tmp_path, text))[0].messages[0]["content"] == "a\u2028b"


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"messages": [USER]}).encode())
    assert len(load_rows(path)) == 1


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"messages": [', "not JSON"),
        ("[1]", "a row is a JSON object, not a list"),
        ('{"messages": [], "x": NaN}', "NaN is not JSON"),
        ('{"answer": 1}', "messages and prompt are missing"),
        ('{"messages": "hello"}', "messages is a string, not a list"),
        ('{"messages": []}', "messages is empty"),
        ('{"messages": ["hello"]}', "message 1 is a string, not an object"),
        ('{"messages": [{"role": "robot", "content": ""}]}', 'message 1: role "robot" is not one of'),
        ('{"messages": [{"role": ["user"], "content": ""}]}', "message 1: role"),
        ('{"messages": [{"role": "user"}]}', "message 1: content is null, not a string"),
        ('{"messages": [{"role": "user", "content": 3}]}', "message 1: content is a number"),
        ('{"messages": [{"role": "assistant", "content": "2"}]}', "the last message is the assistant's"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "surrogate"),
        ('{"messages": [{"role": "user", "content": "x"}], "a": ' + "[" * 100_000, "nested too deeply"),
        ('{"messages": ' + "9" * 5000 + "}", "line 2: "),
    ],
)
def test_a_broken_line_is_reported_with_its_number(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        load_rows(written(tmp_path, {"messages": [USER]}, line))
    assert str(caught.value).startswith("line 2: ")
    assert problem in str(caught.value)


def test_bytes_that_are_not_utf8_are_reported_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"messages": "\xff"}\n')
    with pytest.raises(DataError, match="line 1: not UTF-8"):
        load_rows(path)


def test_broken_lines_are_reported_with_the_first_twenty_in_full(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_rows(written(tmp_path, *["{"] * 25))
    message = str(caught.value)
    assert "line 1: " in message
    assert "line 20: " in message
    assert "line 21: " not in message
    assert message.endswith("and 5 more")


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_file_without_rows_is_an_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match="no rows"):
        load_rows(written(tmp_path, content))


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_rows(tmp_path / "absent.jsonl")


def test_fields_that_graders_need_are_checked_with_line_numbers(tmp_path: Path) -> None:
    graders = [
        Grader(name="exact", exact_match=ExactMatch()),
        Grader(name="close", numeric=Numeric(field="value")),
    ]
    path = written(
        tmp_path,
        {"messages": [USER], "answer": "2", "value": "about 2"},
        {"messages": [USER], "value": "none"},
        {"messages": [USER], "answer": ["2"], "value": True},
    )
    with pytest.raises(DataError) as caught:
        load_rows(path, required_fields(graders))
    assert str(caught.value).split("; ") == [
        "line 2: field answer is missing (grader exact)",
        "line 2: field value is 'none', not one number such as 1234.5 (grader close)",
        "line 3: field answer is a list, but grader exact needs text or a number",
        "line 3: field value is True, not one number such as 1234.5 (grader close)",
    ]


def test_templates_of_graders_need_the_fields_that_they_name_and_take_objects(tmp_path: Path) -> None:
    graders = [
        Grader(name="check", string_check=StringCheck(input="{completion_json.a}", reference="{who.name}")),
        Grader(name="close", text_similarity=TextSimilarity(reference="{answer}", field="unread")),
    ]
    path = written(
        tmp_path, {"messages": [USER], "who": {"name": "Ada"}, "answer": ["x"]}, {"messages": [USER]}
    )
    with pytest.raises(DataError) as caught:
        load_rows(path, required_fields(graders))
    assert str(caught.value).split("; ") == [
        "line 2: field who is missing (grader check)",
        "line 2: field answer is missing (grader close)",
    ]


@pytest.mark.parametrize(
    ("grader", "value", "problem"),
    [
        (Grader(name="g", math=Math()), "", "contains no expression"),
        (Grader(name="g", math=Math()), " $ $ ", "contains no expression"),
        (Grader(name="g", math=Math()), "\\boxed{}", "contains no expression"),
        (Grader(name="g", math=Math()), False, "contains no expression"),
        (Grader(name="g", numeric=Numeric()), "", "is '', not one number such as 1234.5"),
        (Grader(name="g", numeric=Numeric()), "25 100", "is '25 100', not one number such as 1234.5"),
    ],
)
def test_a_gold_answer_that_is_blank_or_not_clear_is_refused_with_its_line(
    tmp_path: Path, grader: Grader, value: object, problem: str
) -> None:
    path = written(
        tmp_path,
        {"messages": [USER], "answer": "25\N{NO-BREAK SPACE}100"},
        {"messages": [USER], "answer": value},
    )
    with pytest.raises(DataError) as caught:
        load_rows(path, required_fields([grader]))
    assert str(caught.value) == f"line 2: field answer {problem} (grader g)"


@pytest.mark.parametrize(
    ("rows", "fraction", "held"), [(64, 0.1, 32), (1000, 0.1, 100), (5000, 0.1, 256), (100, 0.5, 50)]
)
def test_the_number_of_held_out_rows_is_between_32_and_256(rows: int, fraction: float, held: int) -> None:
    train, held_out = split([row(i) for i in range(rows)], Evaluation(fraction=fraction))
    assert (len(train), len(held_out)) == (rows - held, held)


def test_a_fraction_of_zero_trains_on_all_rows_however_few() -> None:
    rows = [row(i) for i in range(3)]
    assert split(rows, Evaluation(fraction=0)) == (rows, [])


def test_rows_with_the_same_prompt_are_in_the_same_part_of_the_split() -> None:
    train, held_out = split([row(i, f"question {i % 70}") for i in range(280)], Evaluation())
    assert {r.key for r in train}.isdisjoint(r.key for r in held_out)
    assert 32 <= len(held_out) <= 36


def test_the_split_does_not_depend_on_the_order_of_the_rows() -> None:
    rows = [row(i) for i in range(200)]
    assert {r.key for r in split(rows, Evaluation())[1]} == {
        r.key for r in split(rows[::-1], Evaluation())[1]
    }


@pytest.mark.parametrize("rows", [[row(i) for i in range(63)], [row(i, "same") for i in range(500)]])
def test_too_few_rows_or_prompts_for_a_split_raise(rows: list[Row]) -> None:
    with pytest.raises(DataError, match="too few to hold out 32"):
        split(rows, Evaluation())


def test_training_rows_with_a_prompt_of_the_evaluation_dataset_are_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = without([row(1), row(2), row(3)], [row(2)])
    assert [r.line for r in kept] == [1, 3]
    assert "1 training rows left out" in caplog.text
    with pytest.raises(DataError, match="also in the evaluation dataset"):
        without([row(1)], [row(1)])


def test_prompts_are_rendered_with_the_template_arguments() -> None:
    prompts, dropped = render([row(1)], WordTokenizer(), {"marker": 7}, 10)
    assert [p.token_ids for p in prompts] == [(8, 1, 7)]
    assert dropped == 0


def test_long_prompts_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    rows = [row(i) for i in range(19)] + [row(19, "one two three four")]
    with caplog.at_level(logging.WARNING):
        prompts, dropped = render(rows, WordTokenizer(), None, 3)
    assert (len(prompts), dropped) == (19, 1)
    assert not caplog.records


def test_a_warning_is_logged_if_more_than_a_tenth_of_the_prompts_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [row(i) for i in range(8)] + [row(8, "one two three four")]
    assert render(rows, WordTokenizer(), None, 3)[1] == 1
    assert "1 of 9 prompts dropped: longer than 3 tokens" in caplog.text


def test_if_every_prompt_is_too_long_the_error_names_the_shortest() -> None:
    with pytest.raises(DataError, match=r"all 2 prompts are longer than 2 tokens \(the shortest has 3\)"):
        render([row(1), row(2)], WordTokenizer(), None, 2)


def test_rows_that_the_chat_template_refuses_are_listed_with_their_lines() -> None:
    with pytest.raises(
        DataError, match="line 2: the chat template refuses these messages: roles must alternate"
    ):
        render([row(1), row(2, "refuse this")], WordTokenizer(), None, 10)


def test_a_tokenizer_without_template_is_a_configuration_error() -> None:
    tokenizer = WordTokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ConfigurationError, match="no chat template"):
        render([row(1)], tokenizer, None, 10)
