"""A chat template that drops a message is an error.

If a chat template prints today's date, all attempts of a run print the same date.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from rft_run.errors import DataError
from rft_run.folder import RunFolder, tensors_of
from rft_trainer.data.rendering import Renderer
from rft_trainer.data.rows import Row, prompt_key
from rft_trainer.data.run_rendering import Rendering
from rft_trainer.data.whole import render

CHATML = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
DROPS = (
    "{% for m in messages %}{% if m.role in ['system', 'user', 'assistant'] %}"
    "<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}"
)
REFUSES = (
    "{% for m in messages %}{% if m.role == 'developer' %}{{ raise_exception('unknown role') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}"
)
OBJECTS = (
    "{% if tools %}<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if 'tool_calls' in m %}"
    "{% for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}"
    "{% endif %}{% endfor %}"
)
TEXTS = OBJECTS.replace("{{ c.function.arguments | tojson }}", "{{ '=' + c.function.arguments }}")
PRINTED = OBJECTS.replace(
    " | tojson }}{% endfor %}{% endif %}{% endfor %}", " }}{% endfor %}{% endif %}{% endfor %}"
)
XML = OBJECTS.replace(
    "{{ c.function.arguments | tojson }}",
    "{% for k, v in c.function.arguments | items %}<{{ k }}>{{ v }}{% endfor %}",
)
EITHER = (
    "{% for m in messages %}{% if m.tool_calls %}{% for c in m.tool_calls %}{{ c.function.name }}"
    "{{ c.function.arguments | tojson }}{% endfor %}{% else %}<{{ m.role }}>{{ m.content }}{% endif %}"
    "{% endfor %}"
)
DATED = "{{ strftime_now('%Y-%m-%d') }} {% for m in messages %}{{ m.content }}{% endfor %}"

DEVELOPER = {"role": "developer", "content": "Be brief."}
USER = {"role": "user", "content": "1 + 1?"}
ARGUMENTS = {"a": 1, "b": "é"}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]


class Characters:
    """A tokenizer that renders its chat template as transformers does. Each character is a token."""

    def __init__(self, template: str) -> None:
        self.chat_template = template

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> Any:
        from transformers.utils.chat_template_utils import render_jinja_template

        tokenize, _ = options.pop("tokenize"), options.pop("return_dict", None)
        rendered: Any = render_jinja_template([conversation], chat_template=self.chat_template, **options)
        text = rendered[0][0]
        return [ord(character) for character in text] if tokenize else text

    def decode(self, token_ids: list[int]) -> str:
        return "".join(map(chr, token_ids))


def row(*messages: dict[str, Any], line: int = 1, **fields: Any) -> Row:
    return Row(line, list(messages), fields, prompt_key(messages))


def text(template: str, one: Row, rendering: Rendering | None = None) -> str:
    renderer = Renderer(Characters(template), None, rendering or Rendering())
    return "".join(map(chr, renderer.prompt(one).token_ids))


def call(arguments: object, content: str = "") -> dict[str, Any]:
    function = {"name": "add", "arguments": arguments}
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": [{"type": "function", "function": function}],
    }


@pytest.mark.parametrize("template", [DROPS, REFUSES])
def test_a_developer_is_the_system_where_the_template_does_not_know_it(
    template: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [row(DEVELOPER, USER, line=line) for line in (1, 2)]
    prompts, _ = render(rows, Characters(template), None, 100)
    assert {"".join(map(chr, prompt.token_ids)) for prompt in prompts} == {"<system>Be brief.<user>1 + 1?"}
    assert caplog.text.count("they get the role system") == 1
    assert prompts[0].row.messages[0] == DEVELOPER


def test_a_developer_that_the_template_knows_stays(caplog: pytest.LogCaptureFixture) -> None:
    assert text(CHATML, row(DEVELOPER, USER)) == "<developer>Be brief.<user>1 + 1?"
    assert not caplog.records


def test_another_message_that_the_template_drops_is_an_error_of_its_line() -> None:
    answer = {"role": "tool", "content": "2"}
    with pytest.raises(DataError, match=r"line 7: the chat template drops message 2 \(tool\): remove"):
        render([row(USER), row(USER, answer, line=7)], Characters(DROPS), None, 100)


def test_a_system_message_that_the_template_drops_is_an_error_and_one_that_it_merges_is_none() -> None:
    system = {"role": "system", "content": "Be brief."}
    only_users = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    with pytest.raises(ValueError, match=r"drops message 1 \(system\)"):
        text(only_users, row(system, USER))
    assert text("{{ messages[0].content + messages[1].content }}", row(system, USER)) == "Be brief.1 + 1?"


def test_a_tool_call_that_the_template_drops_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"drops message 2 \(assistant\)"):
        text(CHATML, row(USER, call("{}"), USER))


def test_calls_in_rows_of_an_environment_whose_tools_are_text_are_rendered_as_text() -> None:
    rows = [
        row(USER, call({"a": 1}), {"role": "tool", "content": "2"}, {"role": "assistant", "content": "2"})
    ]
    (prompt,), _ = render(rows, Characters(CHATML), None, 1000, tool_style="text")
    assert "".join(map(chr, prompt.token_ids)) == (
        '<user>1 + 1?<assistant><tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
        "<user><tool_response>2</tool_response><assistant>2"
    )
    assert prompt.row.messages == rows[0].messages


def test_arguments_that_are_nested_too_deeply_are_an_error_of_their_line() -> None:
    deep = call('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(DataError, match=r"line 9: .*nested too deeply"):
        render([row(USER, deep, USER, line=9)], Characters(CHATML), None, 1000, tool_style="text")


def test_a_part_of_a_message_that_the_template_drops_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    assert "add" in text(EITHER, row(USER, call("{}", "I add."), USER))
    assert caplog.text.count("drops the content of messages of the role assistant that have tool calls") == 1


@pytest.mark.parametrize("arguments", [ARGUMENTS, json.dumps(ARGUMENTS)])
@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        (OBJECTS, 'add{"a": 1, "b": "é"}'),
        (TEXTS, 'add={"a": 1, "b": "é"}'),
        (PRINTED, 'add{"a": 1, "b": "é"}'),
        (XML, "add<a>1<b>é"),
    ],
)
def test_arguments_of_tool_calls_reach_each_template_as_it_needs_them(
    template: str, rendered: str, arguments: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert (
        text(template, row(USER, call(arguments), USER)) == f"<user>1 + 1?<assistant>{rendered}<user>1 + 1?"
    )
    assert not caplog.records


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (call("{"), "line 1: message 1: tool call 1: the arguments cannot be read: not JSON"),
        (call("[]"), "tool call 1: its arguments are a list, not an object"),
        (call(None), "tool call 1: its arguments are null, not an object"),
        ({"role": "assistant", "content": "", "tool_calls": "add"}, "message 1: tool_calls is a string"),
        ({"role": "assistant", "content": "", "tool_calls": [3]}, "message 1: tool call 1 is a number"),
    ],
)
def test_malformed_tool_calls_are_refused_with_their_line(message: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        text(OBJECTS, row(message, USER))


@pytest.mark.parametrize("none", [None, []])
def test_tool_calls_that_are_null_or_empty_are_none(none: object) -> None:
    message = {"role": "assistant", "content": "2", "tool_calls": none}
    assert text(OBJECTS, row(USER, message, USER)) == "<user>1 + 1?<assistant>2<user>1 + 1?"


def test_tools_of_a_row_reach_the_template_and_one_that_drops_them_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert text(OBJECTS, row(USER, tools=TOOLS)) == f"<tools>{json.dumps(TOOLS[0])}<user>1 + 1?"
    assert text(OBJECTS, row(USER, tools=json.dumps(TOOLS))).startswith("<tools>")
    assert not caplog.records
    assert text(CHATML, row(USER, tools=TOOLS)) == "<user>1 + 1?"
    assert caplog.text.count("drops the tools of a row") == 1


def test_a_run_renders_the_date_of_its_first_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    first = Rendering.of_run(folder)
    known = json.loads(folder.rendering.read_text())
    assert known == {"moment": first.moment, "asBefore": False}
    folder.rendering.write_text(json.dumps(known | {"moment": "2025-12-31T23:59:58"}))
    assert text(DATED, row(USER), Rendering.of_run(folder)) == "2025-12-31 1 + 1?"


def test_a_run_of_the_last_release_gives_messages_to_the_template_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-000003").mkdir(parents=True)
    rendering = Rendering.of_run(RunFolder(tmp_path))
    assert rendering.as_before
    assert text(DROPS, row(DEVELOPER, USER, tools=TOOLS), rendering) == "<user>1 + 1?"
    assert text(OBJECTS, row(USER, tools=TOOLS), rendering) == "<user>1 + 1?"
    assert Rendering.of_run(RunFolder(tmp_path)) == rendering


def test_a_run_of_this_release_that_lost_the_file_keeps_the_tools_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoint_of(3).mkdir(parents=True)
    tensors_of(folder.checkpoint_of(3)).touch()
    assert not Rendering.of_run(folder).as_before
    assert "rendering.json is lost" in caplog.text
