"""A whole run with an environment: its steps, its records, and the results after it is resumed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from rft_api.environment import Environment
from rft_graders.scorer import Scorer
from rft_run.config import RunConfig
from rft_run.folder import RunFolder
from rft_run.rollouts import read_rollouts
from rft_run.steps import read_steps
from rft_trainer.data import Prompt, Row
from rft_trainer.rollout.engine import Generated, Request, SamplingParameters
from rft_trainer.rollout.episodes import Episodes
from rft_trainer.rollout.gateway.dialogue import Dialogue
from rft_trainer.rollout.groups import rollout_requests
from rft_trainer.rollout.transformers_engine import TransformersEngine
from tests.trainer.loop_support import COMPARED, config, run, with_spec

ECHO = """
class Environment:
    def reset(self, answer, **row):
        self.said = ""
        return "+"

    def reply(self, text):
        self.said += text
        return None if len(self.said) > 12 else "a" + text[:1]

    def get_reward(self):
        return sum(c.isdigit() for c in self.said) / max(1, len(self.said))
"""


@pytest.fixture(scope="module")
def talking_model(character_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a model whose tokens are characters. Its template ends each message with <end>."""
    folder = tmp_path_factory.mktemp("talking") / "model"
    shutil.copytree(character_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<end>{% endfor %}"
    tokenizer.save_pretrained(folder)
    return folder


def environment_run(model: Path, run_dir: Path) -> RunConfig:
    return with_spec(
        config(model, run_dir, epochs=2, cpuDtype="float32"),
        graders=[],
        environment={"python": {"inline": ECHO}, "maxTurns": 3, "concurrency": 4},
        preflight="off",
        sampling={"engine": "transformers", "maxTokens": 16, "temperature": 1.0, "numRollouts": 2},
        evaluation={"fraction": 0.1},
        stop={"maxSteps": 2},
        checkpoint={"everySteps": 1},
    )


def test_a_run_trains_on_all_turns_and_records_them(talking_model: Path, tmp_path: Path) -> None:
    given = environment_run(talking_model, tmp_path / "run")
    attempt = run(given)
    folder = RunFolder(Path(given.run_dir))
    first, second = read_steps(folder.metrics)
    assert first.turns is not None
    assert 1 < first.turns <= 3
    assert first.tool_calls == 0
    assert first.environment_fraction is not None
    assert 0 < first.environment_fraction < 1
    assert first.mismatch_mean_abs is not None
    assert first.mismatch_mean_abs < 1e-4
    assert first.grad_norm
    shown = attempt.monitors.status.snapshot(attempt.state, [first]).metrics
    assert shown is not None
    assert (shown.turns, shown.tool_calls, shown.tool_errors) == (first.turns, 0, 0)
    assert (shown.limited_fraction, shown.environment_errors) == (first.limited_fraction, 0)
    assert shown.environment_fraction == first.environment_fraction
    rollouts = read_rollouts(folder.rollouts_of(1))
    assert all(record.graders.keys() == {"environment"} for record in rollouts)
    talked = next(record for record in rollouts if record.turns is not None and len(record.turns) > 2)
    assert [message["role"] for message in (talked.turns or [])[:3]] == ["assistant", "user", "assistant"]
    evaluation = attempt.monitors.status.evaluation
    assert evaluation is not None
    assert (evaluation.graders or {}).keys() == {"environment"}

    again = environment_run(talking_model, tmp_path / "again")
    shutil.copytree(folder.path, again.run_dir, dirs_exist_ok=True)
    copied = RunFolder(Path(again.run_dir))
    shutil.rmtree(copied.checkpoint_of(2))
    run(again)
    (_, resumed) = read_steps(copied.metrics)
    for name in COMPARED:
        assert resumed.dump()[name] == pytest.approx(second.dump()[name], rel=1e-5, abs=1e-7), name
    assert json.dumps([r.turns for r in read_rollouts(copied.rollouts_of(2))]) == json.dumps(
        [r.turns for r in read_rollouts(folder.rollouts_of(2))]
    )


UNEVEN = """
import time

class Environment:
    def reset(self, wait, **row):
        self.wait, self.turns = wait, 0

    def reply(self, text):
        self.turns += 1
        time.sleep(self.wait / 20)
        return "go on" if self.turns < 3 + self.wait else None

    def get_reward(self):
        return 1.0
"""


class Player:
    """Plays rollouts with the tiny model and the engine ``transformers``."""

    def __init__(self, model: Path, source: str, *, concurrency: int) -> None:
        self.engine = TransformersEngine(model, "cpu", "float32")
        tokenizer: Any = AutoTokenizer.from_pretrained(model)
        (end,) = tokenizer.encode("<end>", add_special_tokens=False)
        self.dialogue = Dialogue(tokenizer, None, frozenset({end}), vocabulary=len(tokenizer))
        python = {"inline": source}
        self.settings = Environment.model_validate(
            {"python": python, "maxTurns": 5, "concurrency": concurrency, "timeoutSeconds": 60}
        )

    def __call__(self, prompts: list[Prompt], requests: list[Request], *, together: bool) -> list[Generated]:
        with Scorer([self.settings.as_grader()], slots=self.settings.concurrency) as scorer:
            episodes = Episodes(self.settings, self.dialogue, self.engine, scorer, 500, together=together)
            return episodes.generate(prompts, requests, lambda: False)


def test_the_tokens_of_a_rollout_are_the_same_at_its_own_pace_and_together(talking_model: Path) -> None:
    played = Player(talking_model, UNEVEN, concurrency=3)
    said = [{"role": "user", "content": "1+1"}]
    prompts = [Prompt(Row(line, said, {"wait": line % 3}, str(line)), (1,)) for line in range(3)]
    requests = rollout_requests(prompts, 2, SamplingParameters(1.0, 1.0, 0, 8), 0, 1)

    alone, together = (played(prompts, requests, together=together) for together in (False, True))
    assert [one.token_ids for one in alone] == [one.token_ids for one in together]
    assert [one.episode.turns for one in alone if one.episode] == [3, 3, 4, 4, 5, 5]
    for one, other in zip(alone, together, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


AGENT = """
from openai import OpenAI

class Environment:
    def reset(self, question, **row):
        self.question, self.said = question, []

    def rollout(self, base_url, api_key):
        client = OpenAI(base_url=base_url, api_key=api_key)
        messages = [{"role": "user", "content": self.question}]
        for _ in range(2):
            answer = client.chat.completions.create(model="policy", messages=messages, temperature=0.1)
            said = answer.choices[0].message
            messages += [said.to_dict(), {"role": "user", "content": "+"}]
            self.said.append(said.content)

    def get_reward(self):
        return len(self.said) / 2
"""


@pytest.mark.parametrize("together", [False, True])
def test_an_agent_of_openais_client_plays_a_rollout(talking_model: Path, together: bool) -> None:
    pytest.importorskip("openai", reason="OpenAI's client comes with vLLM")
    played = Player(talking_model, AGENT, concurrency=1)
    prompts = [Prompt(Row(1, [], {"question": "1+1"}, "1"), (1,))]
    requests = rollout_requests(prompts, 1, SamplingParameters(1.0, 1.0, 0, 8), 0, 1)
    (completion,) = played(prompts, requests, together=together)
    episode = completion.episode
    assert episode is not None
    assert episode.reward is not None
    assert episode.reward.outcome == 1.0
    assert [message["role"] for message in episode.messages] == ["user", "assistant", "user", "assistant"]
    assert (episode.turns, episode.given, episode.refused) == (2, 1, 0)
    (segment,) = episode.segments
    own = zip(segment.token_ids, segment.sampled, strict=True)
    assert tuple(token for token, sampled in own if sampled) == completion.token_ids
    # The first turn has the rollout's own seed and the spec's temperature, as a rollout of one turn
    # without an environment has.
    (single,) = played.engine.generate([replace(requests[0], prompt_token_ids=segment.prompt_ids)])
    assert segment.token_ids[: len(single.token_ids)] == single.token_ids
