"""Rollouts of several turns with an environment in its own worker process, and how errors end them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rft_graders.scorer import Scorer
from rft_run.errors import ConfigurationError, UserCodeError
from tests.trainer.episodes_support import TOKENIZER, Played, prompt

SHOP = '''
class Environment:
    def reset(self, prices, **row):
        self.prices, self.right = prices, False
        return f" There are {len(prices)} goods."

    def price(self, name: str) -> int:
        """Return the price of an item.

        Args:
            name: The item.
        """
        self.right = True
        return self.prices[name]

    def get_reward(self):
        print("scored")
        return 0.75 if self.right else 0.25
'''
GAME = """
class Environment:
    def reset(self, secret, **row):
        self.secret, self.tries = secret, 0

    def reply(self, text):
        self.tries += 1
        return None if int(text) == self.secret else "higher" if int(text) < self.secret else "lower"

    def get_reward(self):
        return 1 / self.tries
"""
ASK = '<tool_call>{"name": "price", "arguments": {"name": "%s"}}</tool_call>'


@pytest.fixture
def play() -> Iterator[Callable[..., Played]]:
    opened: list[Scorer] = []

    def started(*arguments: Any, **settings: Any) -> Played:
        one = Played(*arguments, **settings)
        opened.append(one.scorer.__enter__())
        return one

    yield started
    for scorer in opened:
        scorer.__exit__(None, None, None)


def shopper(text: str) -> str:
    return "It costs 3." if "<tool_response>" in text else ASK % "apple"


def test_a_tool_is_called_and_its_result_is_context(play: Callable[..., Played]) -> None:
    played = play(SHOP, shopper)
    ((completion, episode),) = played([prompt(prices={"apple": 3})])
    assert [message["role"] for message in episode.messages] == ["user", "assistant", "tool", "assistant"]
    assert episode.messages[0]["content"] == "Go. There are 1 goods."
    assert episode.messages[2]["content"] == "3"
    assert (episode.turns, episode.tool_calls, episode.tool_errors, episode.limit) == (2, 1, 0, None)
    assert completion.text == "It costs 3."
    (segment,) = episode.segments
    assert segment.trained == len(completion.token_ids)
    assert "<tool_response>3</tool_response>" in TOKENIZER.decode(
        [token for token, own in zip(segment.token_ids, segment.sampled, strict=True) if not own]
    )
    (score,) = played.scores
    assert (score.reward, score.printed) == (0.75, {"environment": "scored\n"})


def test_a_game_goes_on_until_the_environment_is_silent(play: Callable[..., Played]) -> None:
    def guess(text: str) -> str:
        low, high = 0, 8
        for line in text.split("assistant\n")[1:]:
            said = line.split("<|im_end|>")[0]
            if said:
                low, high = (int(said) + 1, high) if "higher" in line else (low, int(said) - 1)
        return str((low + high) // 2)

    played = play(GAME, guess)
    found = played([prompt(1, secret=4), prompt(2, secret=7), prompt(3, secret=1)], count=2)
    assert [episode.turns for _, episode in found] == [1, 1, 3, 3, 2, 2]
    assert [score.reward for score in played.scores] == pytest.approx([1, 1, 1 / 3, 1 / 3, 1 / 2, 1 / 2])
    assert max(played.engine.sizes) == 4


def test_wrong_calls_are_told_to_the_model_and_counted(play: Callable[..., Played]) -> None:
    said = iter([ASK % "pear", "<tool_call>{", '<tool_call>{"name": "buy"}</tool_call>', "I give up."])
    ((_, episode),) = play(SHOP, lambda _: next(said))([prompt(prices={"apple": 3})])
    results = [message["content"] for message in episode.messages if message["role"] == "tool"]
    assert [result[:11] for result in results] == ['{"error": "'] * 3
    assert "KeyError" in results[0]
    assert "does not end with" in results[1]
    assert "no tool buy" in results[2]
    assert (episode.tool_calls, episode.tool_errors, episode.turns) == (2, 3, 4)


def test_a_limit_ends_a_rollout_with_what_it_has(play: Callable[..., Played]) -> None:
    played = play(SHOP, lambda _: ASK % "apple", maxTurns=3)
    ((completion, episode),) = played([prompt(prices={"apple": 3})])
    assert (episode.turns, episode.limit, completion.finish_reason) == (3, "maxTurns", "length")
    assert played.scores[0].reward == 0.75


FAULTS = {
    "hangs": ("import time; time.sleep(60)", "no score within 1 s"),
    "crashes": ("import os; os._exit(3)", "exit code 3"),
    "is killed": ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
    "raises": ("raise KeyError('x')", "KeyError: 'x'"),
    "exits": ("raise SystemExit(1)", "SystemExit"),
    "takes all memory": ("x = bytearray(1 << 40)", "MemoryError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_its_own_rollout_only(play: Callable[..., Played], fault: str) -> None:
    code, said = FAULTS[fault]
    broken = GAME.replace(
        "        self.tries += 1\n", f"        self.tries += 1\n        if self.secret == 9: {code}\n"
    )
    played = play(broken, lambda text: "9" if "lower" in text else "5", timeoutSeconds=1, maxTurns=2)
    prompts = [prompt(1, secret=5), prompt(2, secret=9), prompt(3, secret=5)]
    found = played(prompts, count=2)
    assert [score.reward for score in played.scores] == [1, 1, None, None, 1, 1]
    for score in played.scores[2:4]:
        assert said in score.errors["environment"]
    assert all(episode.segments[0].trained == 2 for _, episode in found)
    # The worker's slots of the lost rollouts can be used again.
    played(prompts[:1], count=4)
    assert [score.reward for score in played.scores] == [1, 1, 1, 1]


REWARDS = {
    "float('nan')": "not a finite number",
    "None": "not a number",
    "1.5": "outside the grader's scale",
    "'much'": "not a number",
}


@pytest.mark.parametrize("value", REWARDS)
def test_a_reward_that_is_none_is_an_error_of_the_rollout(play: Callable[..., Played], value: str) -> None:
    played = play(GAME.replace("return 1 / self.tries", f"return {value}"), lambda _: "5", onError="zero")
    played([prompt(secret=5)])
    assert REWARDS[value] in played.scores[0].errors["environment"]
    assert played.scores[0].reward == 0.0


def test_a_flood_of_text_is_cut(play: Callable[..., Played]) -> None:
    flooding = SHOP.replace("return self.prices[name]", "print('y' * 10**6); return 'x' * 10**7")
    ((_, episode),) = play(flooding, lambda text: shopper(text[-3000:]), maxTurns=2)([prompt(prices={})])
    assert episode.messages[2]["content"].endswith("more characters are left out")
    assert episode.limit == "contextLength"


def test_an_environment_keeps_files_and_processes_for_its_rollout(play: Callable[..., Played]) -> None:
    keeps = GAME.replace(
        "self.tries = secret, 0", "self.tries = secret, 0\n        open('notes', 'a').write('x')"
    )
    keeps = keeps.replace("return 1 / self.tries", "return 1 / len(open('notes').read())")
    played = play(keeps, lambda _: "5", concurrency=1)
    played([prompt(secret=5)], count=3)
    assert [score.reward for score in played.scores] == [1.0, 1.0, 1.0]


def test_code_that_is_no_environment_does_not_load(play: Callable[..., Played]) -> None:
    with pytest.raises(UserCodeError, match="the class Environment has no method reset"):
        play("class Environment: ...", shopper)([prompt()])
    with pytest.raises(UserCodeError, match="is a function, not a class"):
        play("def Environment(): ...", shopper)([prompt()])


def test_a_template_that_cannot_continue_a_conversation_ends_the_run(play: Callable[..., Played]) -> None:
    played = play(GAME, lambda _: "5", "{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(ConfigurationError, match="no end token"):
        played([prompt(secret=4)])
