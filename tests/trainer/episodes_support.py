"""Plays rollouts with an environment in its worker process. A function replaces the language model."""

from collections.abc import Callable, Sequence
from typing import Any

from rft_api.environment import Environment
from rft_graders.scorer import Scorer
from rft_trainer.data import Prompt, Row
from rft_trainer.rollout.engine import Generated, Request
from rft_trainer.rollout.episodes import Episodes
from rft_trainer.rollout.gateway.dialogue import Dialogue
from rft_trainer.rollout.groups import grade_items, rollout_requests
from rft_trainer.rollout.segments import Episode
from tests.unit.gateway_support import END, PARAMETERS, VOCABULARY, Characters, generated

TOKENIZER = Characters()


class Speaker:
    """An engine that calls a function with a prompt's text. The function's result is the completion."""

    restarts, batches = 0, 1

    def __init__(self, say: Callable[[str], str]) -> None:
        self.say, self.sizes = say, list[int]()

    def generate(self, requests: Sequence[Request], should_stop: Any) -> list[Generated]:
        self.sizes.append(len(requests))
        return [generated(TOKENIZER, self.say(TOKENIZER.decode(r.prompt_token_ids))) for r in requests]


def prompt(line: int = 1, **fields: Any) -> Prompt:
    return Prompt(Row(line, [{"role": "user", "content": "Go."}], fields, str(line)), (1, 2))


class Played:
    """Call an instance to play rollouts. The reward of the environment is the only score."""

    def __init__(
        self, source: str, say: Callable[[str], str], template: str | None = None, **settings: Any
    ) -> None:
        body = {"python": {"inline": source}, "timeoutSeconds": 5, "concurrency": 4, **settings}
        self.settings = Environment.model_validate(body)
        self.scorer = Scorer([self.settings.as_grader()], slots=self.settings.concurrency)
        self.engine = Speaker(say)
        tokenizer = Characters(template) if template is not None else TOKENIZER
        dialogue = Dialogue(tokenizer, None, frozenset({END}), vocabulary=VOCABULARY)
        self.episodes = Episodes(self.settings, dialogue, self.engine, self.scorer, 2000)  # type: ignore[arg-type]

    def __call__(self, prompts: Sequence[Prompt], count: int = 1) -> list[tuple[Generated, Episode]]:
        requests = rollout_requests(prompts, count, PARAMETERS, 0, 1)
        completions = self.episodes.generate(prompts, requests, lambda: False)
        self.scores = self.scorer.score(grade_items(prompts, completions))
        return [(one, one.episode) for one in completions if one.episode is not None]
