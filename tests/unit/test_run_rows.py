"""A dataset's file is read or refused. A refusal says what was found and how to convert the file."""

import csv
import gzip
import json
from io import BytesIO
from typing import Any

import pytest

from rft_api.sources import Dataset
from rft_run.errors import DataError
from rft_run.rows import HEAD_BYTES, RowLayout, json_lines, parsed, unpacking
from rft_run.rows.messages import calls_of, tools_of
from rft_run.rows.strict import value_of

JSON_LINES = RowLayout()
USER = {"role": "user", "content": "What is 1 + 1?"}
ROW = json.dumps({"messages": [USER], "answer": "2"})
CSV = RowLayout("csv", {"prompt": "question"})
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"function": {"name": "add", "arguments": "{}"}}],
}


def lines(content: str | bytes, layout: RowLayout = JSON_LINES) -> list[bytes]:
    data = content.encode() if isinstance(content, str) else content
    return list(json_lines(BytesIO(data), layout, "rows"))


def read(
    content: str | bytes, layout: RowLayout = JSON_LINES
) -> list[tuple[int, list[dict[str, Any]], dict[str, Any]]]:
    found = enumerate(lines(content, layout), start=1)
    return [(number, *parsed(line, layout)) for number, line in found if line.strip()]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"messages": [], "x": 1e400}', "the number 1e400 is too large"),
        ('{"messages": [], "x": [-1e999]}', "the number -1e999 is too large"),
        ('{"messages": [], "x": Infinity}', "Infinity is not JSON"),
        ('{"messages": [], "answer": 1, "answer": 2}', 'the key "answer" occurs twice'),
        ('{"messages": [{"role": "user", "role": "user", "content": ""}]}', 'the key "role" occurs twice'),
    ],
)
def test_numbers_and_keys_that_json_readers_change_in_silence_are_refused(line: str, problem: str) -> None:
    with pytest.raises(ValueError, match="^" + problem.replace("-", r"\-")):
        parsed(line.encode(), RowLayout())


def message_of(message: dict[str, Any]) -> dict[str, Any]:
    return parsed(json.dumps({"messages": [message, USER]}).encode(), RowLayout()).messages[0]


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]}, "a b"),
        (CALL, ""),
        ({key: value for key, value in CALL.items() if key != "content"}, ""),
    ],
)
def test_parts_of_text_and_null_beside_tool_calls_are_taken(message: dict[str, Any], content: str) -> None:
    assert message_of(message) == {**message, "content": content}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([{"type": "image_url", "image_url": {}}], 'part 1 of its content has the type "image_url"'),
        ([{"type": "text", "text": "a"}, "b"], "part 2 of its content is a string"),
        ([{"type": "text"}], "part 1 of its content: text is null"),
        ([], "content is an empty list"),
        (None, "content is null, not a string"),
    ],
)
def test_other_contents_are_refused_with_their_message_and_part(content: object, problem: str) -> None:
    with pytest.raises(ValueError, match=f"message 1: {problem}"):
        message_of({"role": "user", "content": content})


def test_a_row_with_a_prompt_is_a_question_of_the_user() -> None:
    assert read('{"prompt": "1 + 1?", "system": "Be brief.", "answer": 2}')[0][1:] == (
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}],
        {"prompt": "1 + 1?", "system": "Be brief.", "answer": 2},
    )
    assert read(json.dumps({"prompt": [USER]}))[0][1] == [USER]


def test_beside_messages_a_prompt_is_a_field_as_any_other() -> None:
    assert read(json.dumps({"messages": [USER], "prompt": 3}))[0][1:] == ([USER], {"prompt": 3})


def test_beside_messages_conversations_are_a_field_as_any_other() -> None:
    row = {"messages": [USER], "conversations": [{"from": "human", "value": "a"}]}
    assert read(json.dumps(row))[0][1] == [USER]


def test_columns_give_the_fields_of_a_file_the_names_that_rows_have() -> None:
    layout = RowLayout(columns={"prompt": "question", "answer": "solution"})
    found = read('{"question": "1 + 1?", "solution": "2", "answer": "hidden", "level": 1}', layout)
    assert found == [
        (1, [{"role": "user", "content": "1 + 1?"}], {"level": 1, "prompt": "1 + 1?", "answer": "2"})
    ]


def test_sharegpt_conversations_are_read_and_the_last_answer_becomes_a_field() -> None:
    turns = [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]
    row = json.dumps({"conversations": turns, "system": "Be brief."})
    _, messages, fields = read(row, RowLayout("sharegpt"))[0]
    assert [(message["role"], message["content"]) for message in messages] == [
        ("system", "Be brief."),
        ("user", "1 + 1?"),
    ]
    assert fields["answer"] == "2"
    with pytest.raises(ValueError, match='turn 1: the field "from" is "robot", not one of system, human'):
        parsed(b'{"conversations": [{"from": "robot", "value": ""}]}', RowLayout("sharegpt"))


def test_rows_of_a_csv_have_the_numbers_of_the_lines_where_they_begin() -> None:
    content = '\ufeffquestion,answer\r\n"one, or\r\n""two""?",1\r\n\r\nsecond,\r\n'
    assert read(content, CSV) == [
        (
            2,
            [{"role": "user", "content": 'one, or\r\n"two"?'}],
            {"answer": "1", "prompt": 'one, or\r\n"two"?'},
        ),
        (5, [{"role": "user", "content": "second"}], {"prompt": "second"}),
    ]


def test_messages_in_a_cell_are_json_text() -> None:
    cell = json.dumps([USER]).replace('"', '""')
    assert read(f'messages,answer\n"{cell}",2\n', RowLayout("csv"))[0][1] == [USER]


@pytest.mark.parametrize("layout", [RowLayout(), CSV])
def test_what_gzip_compressed_is_read_as_the_file_itself(layout: RowLayout) -> None:
    content = (ROW + "\n") * 3 if layout.format == "jsonl" else "question,answer\na,b\n"
    assert read(gzip.compress(content.encode()), layout) == read(content, layout)
    with pytest.raises(DataError, match="rows: is a damaged gzip file"):
        lines(gzip.compress(content.encode())[:-9], layout)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"PAR1\x15\x04", "rows: is Parquet, but a dataset must be JSON lines; convert it: python -c"),
        (gzip.compress(b"PAR1\x15\x04"), "rows: is Parquet"),
        (gzip.compress(gzip.compress(ROW.encode())), "rows: is compressed by gzip twice"),
        (b"rows.jsonl".ljust(257, b"\0") + b"ustar\x0000", "rows: is a tar archive"),
        (f"[{ROW},\n{ROW},\n", "rows: is one JSON list"),
        (b"PK\x03\x04..", "rows: is a zip archive"),
        (ROW.encode("utf-16"), "rows: is UTF-16.*iconv -f UTF-16"),
        (ROW.encode("utf-16-le"), "rows: is UTF-16 without a byte order mark.*UTF-16LE"),
        (ROW.encode("utf-32"), "rows: is UTF-32"),
        (f"{ROW}\r{ROW}\r", "carriage return alone"),
        (f"[{ROW},\n{ROW}]", r"rows: is one JSON list.*jq -c '\.\[\]'"),
        (f"[{ROW}]", "rows: is one JSON list"),
        ("[" + f"{ROW},\n" * 20_000 + f"{ROW}]", "rows: is one JSON list"),
        (json.dumps(json.loads(ROW), indent=1), "rows: is JSON whose objects span lines.*jq -c '.'"),
        (json.dumps({"data": [json.loads(ROW)]}, indent=1), r"jq -c '\.data\[\]'"),
        ("<!DOCTYPE html>\n<html>", "like a web page"),
        ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (
            "question,answer\na,b\n",
            "looks like CSV with the columns 'question,answer': set spec.dataset.format",
        ),
        (
            '{"question": "a", "answer": 1}\n' * 3,
            "the first row has question, answer, but neither messages nor",
        ),
        ('{"Problem": "a", "solution": 1}', r"columns: \{prompt: Problem, answer: solution\}"),
        (
            '{"instruction": "a", "input": "b"}',
            r"needs several of the columns instruction, input, first join them into one",
        ),
        ('{"conversations": [{"from": "human", "value": "a"}]}', "set spec.dataset.format: sharegpt"),
        (
            '{"messages": [{"from": "human", "value": "a"}]}',
            r"sharegpt, and spec.dataset.columns: \{messages",
        ),
        (
            json.dumps({"messages": [USER, {"role": "assistant", "content": "2"}]}),
            "as in data for supervised training.*jq -c",
        ),
    ],
)
def test_another_kind_of_file_is_refused_in_one_sentence(content: str | bytes, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        lines(content)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("rows: ") == 1


@pytest.mark.parametrize(
    ("content", "layout", "sentence"),
    [
        ("question;answer\na;b\n", CSV, "separated by a semicolon, not by a comma.*delimiter=';'"),
        ("question\tanswer\na\tb\n", CSV, "separated by a tab"),
        ("question,a,a\n1,2,3\n", CSV, "the column 'a' occurs twice"),
        ("asked,answer\n1,2\n", CSV, "spec.dataset.columns names question, but the header has asked, answer"),
        (
            "question,answer\n1,2\n",
            RowLayout("csv"),
            r"neither messages nor prompt.*columns: \{prompt: question\}",
        ),
        ("question,answer\n1,2\n1,2,3\n", CSV, "line 3: has 3 cells, but the header has 2"),
        ('question,answer\n"1,2\n', CSV, "a closing quote is missing"),
        (b"question,answer\n\xff,2\n", CSV, "not UTF-8"),
        (ROW, RowLayout("csv"), 'spec.dataset.format is csv, but the file begins with "{" like JSON'),
        (ROW, RowLayout("sharegpt"), "no conversations, which spec.dataset.format: sharegpt needs"),
        (
            ROW,
            RowLayout(columns={"answer": "gold"}),
            "columns names gold, but the first row has messages, answer",
        ),
        (
            '{"question": "a"}',
            RowLayout(where="spec.evaluation.dataset"),
            "e.g. spec.evaluation.dataset.columns: {prompt: question}",
        ),
    ],
)
def test_a_file_that_is_not_as_its_layout_says_is_refused_in_one_sentence(
    content: str | bytes, layout: RowLayout, sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence.replace("{prompt: question}", ".prompt: question")):
        lines(content, layout)


@pytest.mark.parametrize(
    "content", ["", "\n \n", "\ufeff", f"{ROW}\r\n{ROW}", f"\ufeff{ROW}\n", f"{ROW}\n[1]\n{{", "{\n{"]
)
def test_what_is_no_other_kind_of_file_is_left_as_it_is(content: str) -> None:
    assert b"".join(lines(content)) == content.encode()


def test_a_quote_that_is_never_closed_does_not_read_the_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = csv.field_size_limit()
    monkeypatch.setattr(unpacking, "CELL_CHARACTERS", 1000)
    try:
        with pytest.raises(DataError, match=r"rows: line \d+: a cell is longer .* a closing quote missing"):
            lines('question,answer\n"a,1\n' + "b,2\n" * 1000, CSV)
    finally:
        csv.field_size_limit(limit)


def test_a_first_row_longer_than_what_is_looked_at_is_read() -> None:
    row = json.dumps({"messages": [USER], "padding": "x" * (HEAD_BYTES + 10)})
    assert read(row)[0][1] == [USER]


def test_a_row_of_another_shape_further_down_is_reported_with_its_line() -> None:
    first, second = lines(f'{ROW}\n{{"question": "a"}}')
    parsed(first, RowLayout())
    with pytest.raises(ValueError, match="both messages and prompt are missing"):
        parsed(second, RowLayout())


def test_the_layout_of_a_dataset_of_the_last_release_is_json_lines() -> None:
    assert RowLayout.of(Dataset(uri="./rows.jsonl")) == RowLayout("jsonl", {}, "spec.dataset")


def test_tools_are_a_list_of_objects_or_json_text_of_one() -> None:
    assert (
        tools_of({"tools": '[{"name": "add"}]'})
        == tools_of({"tools": [{"name": "add"}]})
        == [{"name": "add"}]
    )
    assert tools_of({}) is tools_of({"tools": []}) is None
    for wrong in ("hammer", 3, ["hammer"], {"name": "add"}):
        with pytest.raises(ValueError, match=r"^tools is .*not a list of objects"):
            tools_of({"tools": wrong})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": "hello"}, "messages is a string, not a list"),
        ({"messages": []}, "messages is empty"),
        ({"messages": ["hello"]}, "message 1 is a string, not an object"),
        ({"messages": [{"role": "bot", "content": "x"}]}, 'message 1: role "bot" is not one of '),
        ({"messages": [{"content": "x"}]}, "message 1: role null is not one of "),
        ({"messages": [USER, {"role": "assistant", "content": "2"}]}, "the last message "),
        ({"prompt": 7}, "prompt is a number, neither a text nor a list of messages"),
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "x", "system": 7}, "system is a number, not a string"),
    ],
)
def test_a_row_without_a_conversation_is_refused_with_what_it_has(row: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - compared below
        parsed(json.dumps(row).encode(), JSON_LINES)
    assert said.strip() in str(refused.value)


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ("hello", "conversations is a string, not a list"),
        (["hello"], "turn 1 is a string, not an object"),
        ([{"from": "narrator", "value": "x"}], 'turn 1: the field "from" is "narrator", not one of '),
        ([{"from": "human"}], "turn 1: value is null, not a string"),
    ],
)
def test_a_conversation_of_sharegpt_with_a_broken_turn_is_refused(turns: object, said: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - compared below
        parsed(json.dumps({"conversations": turns}).encode(), RowLayout("sharegpt"))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ("add", "message 2: tool_calls is a string, not a list"),
        (["add"], "message 2: tool call 1 is a string, not an object"),
        ([{"function": "add"}], "message 2: tool call 1 is a string, not an object"),
    ],
)
def test_tool_calls_that_are_no_objects_are_refused(calls: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        calls_of(2, {"tool_calls": calls})
    assert calls_of(2, {"tool_calls": [{"function": {"name": "add"}}]}) == [{"name": "add"}]
    assert calls_of(2, {}) == []


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"\xff", "not UTF-8"),
        (b'{"a": "\\ud800"}', "an incomplete surrogate pair"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": }', "not JSON: "),
    ],
)
def test_text_that_is_no_json_is_refused_with_the_reason(raw: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        value_of(raw)
