"""Environment classes: the tools that the model sees, and what each method of a class may return."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from rft_graders.hosted import MAX_TEXT_BYTES, Hosted, documented, json_type, tools_of


class Shop:
    """An environment class as users write it for TRL."""

    def reset(self, goods: dict[str, int], **row: Any) -> str | None:
        self.goods, self.asked = goods, 0
        return f"There are {len(goods)} goods."

    def price(self, name: str, currency: Literal["EUR", "USD"] = "EUR") -> str:
        """Return the price of one item.

        It is looked up.

        Args:
            name: The item, such as
                apple.
            currency (str): The currency.

        Returns:
            The price.
        """
        self.asked += 1
        return f"{self.goods[name]} {currency}"

    async def stock(self) -> dict[str, int]:
        """Return all items."""
        return self.goods

    def get_reward(self) -> float:
        return 1 / max(1, self.asked)

    def _private(self) -> None: ...


class Game(Shop):
    def reply(self, text: str) -> str | None:
        return None if text == "stop" else f"you said {text}"


def played(environment: type = Shop) -> Hosted:
    hosted = Hosted(environment)
    hosted.act({"do": "reset", "row": {"goods": {"apple": 3}, "messages": []}})
    return hosted


def test_public_methods_are_tools_with_a_schema_of_hints_and_docstring() -> None:
    price, stock = tools_of(Game)
    assert price == {
        "type": "function",
        "function": {
            "name": "price",
            "description": "Return the price of one item. It is looked up.",
            "parameters": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "description": "The item, such as apple."},
                    "currency": {"enum": ["EUR", "USD"], "description": "The currency."},
                },
                "required": ["name"],
            },
        },
    }
    assert stock["function"]["parameters"] == {"type": "object", "properties": {}, "required": []}


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (int, {"type": "integer"}),
        (int | None, {"type": "integer"}),
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (list[float], {"type": "array", "items": {"type": "number"}}),
        (list, {"type": "array"}),
        (dict[str, int], {"type": "object"}),
        (bool, {"type": "boolean"}),
        (Any, {}),
    ],
)
def test_a_type_hint_is_a_json_schema(hint: Any, schema: dict[str, Any]) -> None:
    assert json_type(hint) == schema


def test_a_rollout_has_a_start_calls_and_a_reward() -> None:
    hosted = Hosted(Shop)
    assert hosted.act({"do": "describe"})["replies"] is False
    start = {"do": "reset", "row": {"goods": {"apple": 3}, "answer": 1}}
    assert hosted.act(start) == {"text": "There are 1 goods."}
    assert hosted.playing
    assert hosted.act({"do": "call", "name": "price", "arguments": {"name": "apple"}}) == {"text": "3 EUR"}
    assert hosted.act({"do": "call", "name": "stock", "arguments": {}}) == {"text": '{"apple": 3}'}
    assert hosted.act({"do": "reward"}) == {"reward": 1.0}
    assert not hosted.playing


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("price", {"name": "pear"}, "KeyError: 'pear'"),
        ("price", {"colour": "red"}, "TypeError: "),
        ("reset", {}, "there is no tool reset"),
        ("_private", {}, "there is no tool _private"),
        ("__init__", {}, "there is no tool __init__"),
    ],
)
def test_what_a_call_does_wrong_is_told_to_the_model(name: str, arguments: dict[str, Any], said: str) -> None:
    found = played().act({"do": "call", "name": name, "arguments": arguments})
    assert found["failed"].startswith(said)


class Agent(Shop):
    def rollout(self, base_url: str, api_key: str) -> None:
        self.given = (base_url, api_key)

    def get_reward(self) -> float:
        return float(self.given == ("url", "key"))


class Roller(Shop):
    def rollout(self, sides: int) -> int:
        """Roll a die."""
        return sides


def test_an_agent_plays_its_rollout_and_its_methods_are_no_tools() -> None:
    hosted = played(Agent)
    assert hosted.act({"do": "describe"}) == {"tools": [], "replies": False, "agent": True}
    assert hosted.act({"do": "rollout", "baseUrl": "url", "apiKey": "key"}) == {}
    assert hosted.act({"do": "reward"}) == {"reward": 1.0}


def test_a_tool_may_be_called_rollout() -> None:
    described = Hosted(Roller).act({"do": "describe"})
    assert described["agent"] is False
    assert "rollout" in [tool["function"]["name"] for tool in described["tools"]]


def test_a_game_answers_what_the_model_says_until_it_ends() -> None:
    hosted = played(Game)
    assert hosted.act({"do": "describe"})["replies"] is True
    assert hosted.act({"do": "reply", "text": "hello"}) == {"text": "you said hello"}
    assert hosted.act({"do": "reply", "text": "stop"}) == {}


@pytest.mark.parametrize("what", ["call", "reply", "reward"])
def test_a_new_process_does_not_go_on_with_a_rollout_that_it_has_not_begun(what: str) -> None:
    with pytest.raises(RuntimeError, match=r"state is lost$"):
        Hosted(Game).act({"do": what, "name": "price", "arguments": {}, "text": ""})


def test_a_text_that_is_too_long_is_cut() -> None:
    class Flood(Shop):
        def reset(self, goods: dict[str, int], **row: Any) -> str | None:
            return "é" * MAX_TEXT_BYTES

    found = Hosted(Flood).act({"do": "reset", "row": {"goods": {}}})
    assert found["cut"] is True
    assert found["text"].endswith("more characters are left out")
    assert len(found["text"]) < MAX_TEXT_BYTES


@pytest.mark.parametrize(
    ("value", "error"),
    [(float("nan"), ValueError), (float("inf"), ValueError), ("much", TypeError), (None, TypeError)],
)
def test_a_reward_is_a_finite_number(value: Any, error: type[Exception]) -> None:
    class Odd(Shop):
        def get_reward(self) -> Any:
            return value

    hosted = played(Odd)
    with pytest.raises(error, match="get_reward returned"):
        hosted.act({"do": "reward"})
    assert not hosted.playing


class _NoReward:
    def reset(self) -> None: ...


class _NoDocs(Shop):
    def buy(self, name: str) -> None: ...


class _NoHint(Shop):
    def buy(self, name) -> None:  # type: ignore[no-untyped-def]
        """Buy."""


class _Many(Shop):
    def buy(self, *names: str) -> None:
        """Buy."""


class _Odd(Shop):
    def buy(self, name: Shop) -> None:
        """Buy."""


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (_NoReward, "has no method get_reward"),
        (_NoDocs, "the tool buy has no docstring"),
        (_NoHint, "no type hint for name"),
        (_Many, "give each argument a name"),
        (_Odd, "has no form in JSON"),
    ],
)
def test_a_class_that_is_no_environment_is_refused(environment: type, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        Hosted(environment)


class _Static(Shop):
    @staticmethod
    def add(a: int, b: int) -> int:
        """Return a sum."""
        return a + b

    @classmethod
    def twice(cls, a: int) -> int:
        """Return the double."""
        return 2 * a


def test_static_and_class_methods_keep_all_of_their_arguments() -> None:
    found = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools_of(_Static)}
    assert [found[name]["required"] for name in ("add", "twice")] == [["a", "b"], ["a"]]


def test_a_rollout_without_a_reward_can_be_ended_so_that_nothing_of_it_is_kept() -> None:
    shop = played()
    assert shop.playing
    assert shop.act({"do": "end"}) == {}
    assert not shop.playing


def test_of_a_text_that_is_too_long_all_that_fits_is_kept() -> None:
    class Long(Shop):
        def long(self) -> str:
            """Return a long text."""
            return "x" * (MAX_TEXT_BYTES + 1)

    said = played(Long).act({"do": "call", "name": "long", "arguments": {}})
    assert said["text"].count("x") > MAX_TEXT_BYTES - 100


def test_a_docstring_without_sections_is_a_description() -> None:
    assert documented("Do it.\n\nAt once.") == ("Do it. At once.", {})
    with pytest.raises(ValueError, match="has no action 'dance'"):
        Hosted(Shop).act({"do": "dance"})


class Connected:
    """Opens something that is bound to an event loop, and uses it in a later call."""

    async def reset(self, **row: Any) -> None:
        self.asked: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._answer())

    async def _answer(self) -> None:
        self.asked.set_result("ready")
        try:
            await asyncio.sleep(60)
        finally:
            ENDED.append("task")

    async def ask(self) -> str:
        """Return what the connection says."""
        return await self.asked

    def get_reward(self) -> float:
        return 1.0


ENDED: list[str] = []


def test_the_calls_of_a_rollout_share_an_event_loop_and_its_tasks_end_with_it() -> None:
    hosted = Hosted(Connected)
    for _ in range(2):
        hosted.act({"do": "reset", "row": {}})
        assert hosted.act({"do": "call", "name": "ask", "arguments": {}}) == {"text": "ready"}
        assert hosted.act({"do": "reward"}) == {"reward": 1.0}
    assert ENDED == ["task"] * 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.int64(5), "5"),
        (np.array([1, 2]), "[1, 2]"),
        (Decimal("5"), "5"),
        (Decimal("0.5"), "0.5"),
        ({"cost": np.float32(0.5)}, '{"cost": 0.5}'),
        ({(1, 2): "here"}, '{"(1, 2)": "here"}'),
        ([{(1, 2): 3}], '[{"(1, 2)": 3}]'),
        ({3, 1, 2}, "[1, 2, 3]"),
        ({1: "a", None: "b"}, '{"1": "a", "null": "b"}'),
        (Path("file"), '"file"'),
    ],
)
def test_values_of_tools_reach_the_model_as_json(value: Any, text: str) -> None:
    class Tool:
        def reset(self, **row: Any) -> None:
            return None

        def get(self) -> Any:
            """Return the value."""
            return value

        def get_reward(self) -> float:
            return 1.0

    hosted = Hosted(Tool)
    hosted.act({"do": "reset", "row": {}})
    assert hosted.act({"do": "call", "name": "get", "arguments": {}}) == {"text": text}


def test_a_generator_is_no_tool_and_no_reply() -> None:
    class Yields:
        def reset(self, **row: Any) -> Any:
            return (letter for letter in "ab")

        def get_reward(self) -> float:
            return 1.0

    with pytest.raises(TypeError, match="returned a generator"):
        Hosted(Yields).act({"do": "reset", "row": {}})

    class Tool(Yields):
        def get(self) -> Any:
            """Return the value."""
            yield 1

    with pytest.raises(TypeError, match="the tool get is a generator"):
        Hosted(Tool)
