"""With ``reads: answer`` a grader ignores the thought before the answer. With ``whole`` it reads both."""

from typing import Any

import pytest

from rft_api.graders import GRADER_KINDS, Grader
from rft_graders.scorer import Scorer
from rft_graders.thought import answer, opens_thought
from rft_graders.types import GradeItem
from rft_trainer.data.rendering import Renderer
from rft_trainer.data.rows import Prompt, Row
from rft_trainer.data.run_rendering import Rendering
from rft_trainer.rollout.engine import Generated
from rft_trainer.rollout.groups import grade_items
from tests.trainer.grader_service import Answer, serving

QUESTION = {"role": "user", "content": "6 x 7?"}
THOUGHT = "<think>41, or {}?</think>\n\n"


@pytest.mark.parametrize(
    ("completion", "inside", "read"),
    [
        ("42", False, "42"),
        (" 42\n", False, " 42\n"),
        ("<think>41</think>\n\n42\n", False, "42"),
        ("<think></think>42", False, "42"),
        ("<think>41</think>43<think>so</think>42", False, "42"),
        ("41</think>42", True, "42"),
        ("41</think>42", False, "42"),
        ("", False, ""),
        ("<think>41", False, None),
        ("43 <think>41", False, None),
        ("<think>41</think>", False, None),
        ("<think>41</think> \n", False, None),
        ("<think>41</think>43<think>so", False, None),
        ("41", True, None),
        ("", True, None),
        ("<think>41</thi", False, None),
    ],
)
def test_the_answer_is_what_follows_the_last_thought(completion: str, inside: bool, read: str | None) -> None:
    assert answer(completion, inside=inside) == read


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [
        ("<|assistant|><think>\n", True),
        ("<|assistant|><think>", True),
        ("<|assistant|>", False),
        ("<|assistant|><think>\n\n</think>\n\n", False),
    ],
)
def test_a_prompt_may_end_inside_a_thought(prompt: str, opens: bool) -> None:
    assert opens_thought(prompt) is opens


SETTINGS: dict[str, Any] = {
    "exactMatch": {},
    "numeric": {},
    "math": {},
    "regex": {"pattern": "x"},
    "jsonSchema": {"schema": "{}"},
    "textSimilarity": {},
    "python": {"inline": "def grade(completion, row): return len(completion) / 100"},
    "http": {"url": "http://localhost"},
    "model": {"url": "http://localhost", "model": "m", "prompt": "{completion}"},
    "stringCheck": {},
    "formula": {"expression": "g"},
}


def test_graders_of_formats_and_of_users_read_the_whole_and_others_the_answer() -> None:
    graders = [Grader.model_validate({"name": "g", kind: settings}) for kind, settings in SETTINGS.items()]
    assert {grader.kind for grader in graders} == set(GRADER_KINDS)
    assert {grader.kind for grader in graders if not grader.reads_answer} == {"python", "http", "regex"}
    for grader in graders:
        assert grader.model_copy(update={"reads": "answer"}).reads_answer
        assert not grader.model_copy(update={"reads": "whole"}).reads_answer


def scores(completion: str, *, inside: bool = False, **row: object) -> dict[str, float]:
    """Return the scores of a completion by graders of all kinds that need no server and no other graders.

    There are two graders of each kind: one with ``reads: answer``, and one with ``reads: whole``. The key of
    a score is the grader's name, such as ``numeric-answer``.
    """
    kinds = {**SETTINGS, "regex": {"pattern": "42", "fullMatch": True}, "jsonSchema": {"schema": "true"}}
    graders = [
        Grader.model_validate({"name": f"{kind.lower()}-{reads}", kind: settings, "reads": reads})
        for kind, settings in kinds.items()
        for reads in ("answer", "whole")
        if kind not in ("http", "model", "formula")
    ]
    with Scorer(graders) as scorer:
        scored = scorer.score([GradeItem([QUESTION], completion, row, inside_thought=inside)])[0]
    assert scored.errors == {}
    return scored.per_grader


def test_the_answer_behind_a_thought_is_scored_as_if_there_were_none() -> None:
    found = scores(f"{THOUGHT}42", answer="42")
    for kind in ("exactmatch", "numeric", "math", "regex", "jsonschema", "textsimilarity"):
        assert found[f"{kind}-answer"] == 1.0, kind
    assert found["python-answer"] == 0.02
    for kind in ("exactmatch", "regex", "jsonschema"):
        assert found[f"{kind}-whole"] == 0.0, kind
    assert found["textsimilarity-whole"] < 0.2
    assert found["python-whole"] == len(f"{THOUGHT}42") / 100


def test_a_thought_earns_nothing_where_the_answer_is_read() -> None:
    found = scores(r"<think>\boxed{42}</think>I do not know.", answer="42")
    assert (found["numeric-answer"], found["math-answer"], found["exactmatch-answer"]) == (0.0, 0.0, 0.0)
    assert (found["numeric-whole"], found["math-whole"]) == (1.0, 1.0)


@pytest.mark.parametrize(("completion", "inside"), [(r"<think>\boxed{42}", False), (r"\boxed{42}", True)])
def test_a_completion_that_was_cut_inside_the_thought_earns_nothing_and_is_no_error(
    completion: str, inside: bool
) -> None:
    found = scores(completion, inside=inside, answer="42")
    assert {score for name, score in found.items() if name.endswith("-answer")} == {0.0}
    assert (found["numeric-whole"], found["math-whole"]) == (1.0, 1.0)
    assert found["python-whole"] == len(completion) / 100


def test_a_judge_is_asked_of_the_answer_and_not_where_there_is_none() -> None:
    reply = Answer({"choices": [{"message": {"content": '{"score": 4}'}}]})
    with serving(lambda _: reply) as web:
        model = {"url": web.url, "model": "m", "prompt": "{completion}"}
        grader = Grader.model_validate({"name": "j", "scale": {"min": 2, "max": 10}, "model": model})
        items = [GradeItem([QUESTION], text, {}) for text in (f"{THOUGHT}42", "<think>41")]
        with Scorer([grader]) as scorer:
            batch = scorer.score(items)
    assert [asked.body["messages"][0]["content"] for asked in web.asked] == ["42"]
    assert [score.reward for score in batch] == [0.25, 0.0]
    assert batch.error_counts == {}


class Thinking:
    """A tokenizer with one token per character. With ``enable_thinking`` its template opens a thought."""

    def apply_chat_template(self, conversation: list[Any], *, tokenize: bool = True, **options: Any) -> Any:
        thought = "<think>\n" if options.get("enable_thinking") else ""
        text = (
            "".join(f"<{turn['role']}>{turn['content']}" for turn in conversation) + "<assistant>" + thought
        )
        return [ord(character) for character in text] if tokenize else text

    def decode(self, token_ids: list[int]) -> str:
        return "".join(map(chr, token_ids))


@pytest.mark.parametrize("thinking", [True, False])
def test_a_prompt_whose_template_opens_a_thought_makes_its_completions_begin_inside_it(
    thinking: bool,
) -> None:
    renderer = Renderer(Thinking(), {"enable_thinking": thinking}, Rendering())
    prompt: Prompt = renderer.prompt(Row(1, [QUESTION], {"answer": "42"}, "key"))
    item = grade_items([prompt], [Generated((1, 2), (0.0, 0.0), "41", "length")])[0]
    assert (item.inside_thought, item.token_ids) == (thinking, (1, 2))
    exact = Grader.model_validate({"name": "g", "exactMatch": {}})
    assert item.read_by(exact) == (None if thinking else "41")
