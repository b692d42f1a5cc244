"""Faults of an agent while it plays its rollout.

A fault of an agent changes only its own rollout, and changes it as expected.
"""

import time
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import pytest

from rft_graders.printed import MAX_PRINTED_BYTES
from rft_run.errors import SamplerError
from rft_trainer.monitors.metrics import of_episodes
from tests.trainer.episodes_support import Played, prompt

AGENT = """
import json
import os
import time
import urllib.request

class Environment:
    def reset(self, fault, **row):
        self.fault = fault

    def ask(self, url, key, body):
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        return json.load(urllib.request.urlopen(request))

    def rollout(self, base_url, api_key):
        chat, reward = f"{base_url}/chat/completions", f"{base_url.removesuffix('/v1')}/reward"
        messages = [{"role": "user", "content": "Go."}]
        said = self.ask(chat, api_key, {"messages": messages})["choices"][0]["message"]
        exec(self.fault)
        self.ask(chat, api_key, {"messages": [*messages, said, *messages]})

    def get_reward(self):
        return 0.5
"""
TWICE = """
for _ in range(2):
    try:
        self.ask(reward, api_key, {"value": 0.25})
    except OSError as error:
        assert error.code == 409
"""
GARBAGE = """
for descriptor in range(3, 64):
    try:
        os.write(descriptor, b'{"id": "1", "score": 1}\\n')
    except OSError:
        pass
time.sleep(600)
"""
IGNORES_ERRORS = """
try:
    self.ask(chat, api_key, {"messages": messages})
except OSError:
    time.sleep(600)
"""
STRANGER = """
try:
    self.ask(chat, "another rollout's", {"messages": messages})
except OSError as error:
    assert error.code == 401
"""


class Fault(NamedTuple):
    """Code that an agent runs after its first turn, and the expected result of the rollout."""

    code: str
    error: str | None = None
    """A text that the rollout's error must contain. None: the rollout must have no error."""
    reward: float = 0.5
    """The expected reward, if there is no error."""
    turns: int = 2
    limit: str | None = None
    """The limit that is expected to end the rollout. None: no limit."""
    refused: int = 0
    """Number of refused requests."""
    forged: int = 0
    """Number of forged replies."""
    printed: int = 0
    """Number of characters of the agent's output that are kept."""


FAULTS = {
    "hangs": Fault("time.sleep(600)", "no score within 12 s", turns=1),
    "crashes": Fault("os._exit(3)", "exit code 3", turns=1),
    "floods": Fault("print('x' * 10**7)", printed=MAX_PRINTED_BYTES),
    "answers garbage": Fault(GARBAGE, "forged reply", forged=1, turns=1),
    "never ends": Fault(
        "while True: self.ask(chat, api_key, {'messages': messages})", turns=4, limit="maxTurns"
    ),
    "has no number as its reward": Fault("self.get_reward = lambda: float('nan')", "not a finite number"),
    "reports NaN": Fault("self.ask(reward, api_key, {'value': float('nan')})", "400", turns=1, refused=1),
    "reports twice": Fault(TWICE, reward=0.25, refused=1),
    "reports an error": Fault(
        "self.ask(reward, api_key, {'error': 'no site'})", "reported an error: no site"
    ),
    "has another token": Fault(STRANGER, refused=1),
}


@pytest.fixture(scope="module")
def agents() -> Iterator[Played]:
    numbers = count()
    played = Played(
        AGENT, lambda _: str(next(numbers)), maxTurns=4, concurrency=3, timeoutSeconds=4, maxSeconds=8
    )
    with played.scorer:
        yield played


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_an_agent_is_counted_and_hurts_no_other_rollout(agents: Played, name: str) -> None:
    fault = FAULTS[name]
    prompts = [prompt(1, fault=""), prompt(2, fault=fault.code), prompt(3, fault="")]
    found = [episode for _, episode in agents(prompts, count=2)]
    for place in (0, 1, 4, 5):
        assert (agents.scores[place].reward, found[place].turns) == (0.5, 2)
    for score, episode in zip(agents.scores[2:4], found[2:4], strict=True):
        if fault.error is None:
            assert (score.reward, score.errors) == (fault.reward, {})
        else:
            assert fault.error in score.errors["environment"]
        assert (episode.turns, episode.limit, episode.refused) == (fault.turns, fault.limit, fault.refused)
        assert len(score.printed.get("environment", "")) == fault.printed
        assert score.forged == ({"environment": fault.forged} if fault.forged else {})
    metrics = of_episodes(found)
    assert metrics["environment_errors"] == (0 if fault.error is None else 2)
    assert metrics["refused_requests"] == 2 * fault.refused
    assert metrics["limited_fraction"] == pytest.approx(0 if fault.limit is None else 2 / 6)


def test_an_agent_that_dies_in_the_middle_of_a_group_costs_only_its_own_rollout(agents: Played) -> None:
    agents([prompt(1, fault="os._exit(1) if '/rollouts/1/' in base_url else None")], count=3)
    assert [score.reward for score in agents.scores] == [0.5, None, 0.5]


def test_an_error_of_the_sampler_ends_the_run_while_an_agent_still_acts() -> None:
    answered: list[str] = []

    def say(text: str) -> str:
        if answered:
            raise SamplerError("gone")
        answered.append(text)
        return "1"

    played = Played(AGENT, say, timeoutSeconds=30, maxSeconds=30)
    with played.scorer:
        began = time.monotonic()
        with pytest.raises(SamplerError, match="gone"):
            played([prompt(fault=IGNORES_ERRORS)])
        assert time.monotonic() - began < 30


def test_an_agent_that_asks_for_no_turn_has_nothing_to_train_on() -> None:
    played = Played(AGENT.replace("messages = [", "return\n        messages = ["), lambda _: "1")
    with played.scorer:
        played([prompt(fault="")])
    assert "did not call the model" in played.scores[0].errors["environment"]
