"""The pydantic classes for the settings of graders. A grader gives each completion a score from 0 to 1."""

from typing import Literal

from pydantic import Field

from rft_api.base import Int, Model
from rft_api.forms import ADDRESS, IDENTIFIER, LABEL
from rft_api.sources import SecretKeyRef


class ExactMatch(Model):
    """Settings of a grader of kind exactMatch.

    The score is 1 if the text of the completion equals the text in a field of the dataset's row, else 0.
    """

    field: str = Field("answer", description="Field of the row with the expected text.")
    ignore_case: bool = Field(False, description="Compare without regard to case.")
    strip: bool = Field(True, description="Ignore white space at both ends.")


class Numeric(Model):
    """Settings of a grader of kind numeric.

    The score is 1 if a number in the completion equals the number in a field of the dataset's row, else 0.
    """

    field: str = Field("answer", description="Field of the row with the expected number.")
    extract: Literal["last", "first", "boxed", "marker"] = Field(
        "last",
        description=(
            "Which number of the completion is compared: the last one (last), the first one (first), the one"
            " in \\boxed{} (boxed), or the one after the text in the field marker (marker)."
        ),
    )
    marker: str | None = Field(
        None, description="Text in front of the number, such as ####. Set it only if extract is marker."
    )
    tolerance: float = Field(
        0.0, ge=0, description="Largest absolute difference at which two numbers are equal."
    )


class Math(Model):
    """Settings of a grader of kind math.

    The score is 1 if the completion's answer is symbolically equal to the expression in a field of the
    dataset's row, else 0.
    """

    field: str = Field("answer", description="Field of the row with the expected expression.")


class Regex(Model):
    """Settings of a grader of kind regex.

    The score is 1 if the completion matches a regular expression, else 0.
    """

    pattern: str = Field(min_length=1, description="Regular expression in Python's syntax.")
    full_match: bool = Field(
        False,
        description=(
            "Whether the pattern must match the whole completion. If false, a match of a part is enough."
        ),
    )


class JsonSchema(Model):
    """Settings of a grader of kind jsonSchema.

    The score is 1 if the completion is JSON that is valid under a schema, else 0.
    """

    schema_text: str = Field(alias="schema", min_length=2, description="The JSON schema, as JSON text.")


Similarity = Literal[
    "levenshtein",
    "jaroWinkler",
    "tokenSet",
    "fuzzy",
    "bleu",
    "gleu",
    "rouge1",
    "rouge2",
    "rouge3",
    "rouge4",
    "rouge5",
    "rougeL",
]
"""Measures of the similarity of two texts."""

_TEMPLATE_WORDS = (
    "Braces may contain completion, prompt, or the name of a row field. They may also contain a path into"
    " JSON, such as {completion_json.name} for the completion or {person.names[0]} for a row field."
)


class TextSimilarity(Model):
    """Settings of a grader of kind textSimilarity.

    The score is the similarity, from 0 to 1, between the completion and a reference text, such as a field
    of the dataset's row.
    """

    field: str = Field(
        "answer", description="Field of the row with the reference text. Not used if reference is set."
    )
    metric: Similarity = Field("levenshtein", description="The measure of similarity.")
    input: str = Field(
        "{completion}", min_length=1, description=f"Template of the text that is scored. {_TEMPLATE_WORDS}"
    )
    reference: str | None = Field(
        None,
        min_length=1,
        description=(
            "Template of the reference text, instead of field. Braces may contain the same names and paths as"
            " in the field input."
        ),
    )


class StringCheck(Model):
    """Settings of a grader of kind stringCheck.

    The grader compares two texts that are made from templates. The score is 1 if the comparison is true,
    else 0.
    """

    operation: Literal["equals", "notEquals", "contains"] = Field(
        "equals",
        description=(
            "The comparison: whether input is equal to reference (equals), is different (notEquals), or"
            " contains reference (contains)."
        ),
    )
    ignore_case: bool = Field(False, description="Compare without regard to case.")
    input: str = Field("{completion}", min_length=1, description=f"Template of a text. {_TEMPLATE_WORDS}")
    reference: str = Field(
        "{answer}",
        min_length=1,
        description=(
            "Template of the text that is compared with the text of the field input. Braces may contain the"
            " same names and paths as in the field input."
        ),
    )


class Formula(Model):
    """Settings of a grader of kind formula.

    The score is computed from the scores of the graders above this one in the list.
    """

    expression: str = Field(
        min_length=1,
        max_length=2048,
        description=(
            "Arithmetic on the scores of graders, such as 0.5 * exact + min(style, 0.5). Write the name of a"
            " grader for its score, with an underscore for each dash. A score is from 0 to 1. Allowed are"
            " + - * / ^, parentheses, and the functions min, max, abs, floor, ceil, exp, sqrt and log."
        ),
    )


class ConfigMapCode(Model):
    """A ConfigMap with the Python code of a grader or of an environment."""

    name: str = Field(min_length=1, description="Name of the ConfigMap.")
    key: str = Field(
        "grader.py",
        min_length=1,
        description=(
            "Key of the ConfigMap with the Python source. The source can import the other keys as modules."
        ),
    )


DEFAULT_FUNCTION = "grade"
"""Name of the function of a python grader, if the manifest names none."""


class Python(Model):
    """Settings of a grader of kind python.

    The score is the result of your own Python function, which runs in a separate container. Exactly one
    source of the code is set.
    """

    inline: str | None = Field(None, min_length=1, description="Python source that defines the function.")
    config_map: ConfigMapCode | None = Field(None, description="Python source in a ConfigMap.")
    function: str = Field(
        DEFAULT_FUNCTION,
        **IDENTIFIER.limits(),
        description=(
            "Name of the function. It is called as grade(completion, row). It may also have the"
            " parameters of a function for TRL, OpenAI, eval-protocol or verl. Then it is called with values"
            " for these parameters."
        ),
    )


class Http(Model):
    """Settings of a grader of kind http.

    The grader sends batches of completions to your own web service, which returns their scores.
    """

    url: str = Field(
        **ADDRESS.limits(), description="URL of the web service. It gets a batch of completions by POST."
    )
    secret_ref: SecretKeyRef | None = Field(None, description="Secret with the bearer token.")


class ModelJudge(Model):
    """Settings of a grader of kind model.

    A judge model reads the completion, and writes the score or a label in its reply.
    """

    url: str = Field(**ADDRESS.limits(), description="Base URL of an OpenAI-compatible endpoint.")
    model: str = Field(min_length=1, description="Name of the judge model.")
    prompt: str = Field(
        min_length=1,
        description=(
            "Prompt for the judge. It contains {prompt}, {completion} and names of row fields in braces."
        ),
    )
    secret_ref: SecretKeyRef | None = Field(None, description="Secret with the API key.")
    max_tokens: Int = Field(
        512,
        ge=1,
        le=32768,
        description=(
            "Maximum length of the judge's reply, in tokens. A truncated reply is an error unless it has a"
            " complete JSON object with a score."
        ),
    )
    labels: dict[str, float] | None = Field(
        None,
        description=(
            "Score of each label, such as {good: 1, bad: 0}. The judge replies with one of the labels and"
            " with no number. Without labels, the judge replies with a score."
        ),
    )


class Scale(Model):
    """The range of the raw scores of a grader or of an environment. It is mapped linearly onto 0…1."""

    min: float = Field(description="Raw score that is mapped to 0.")
    max: float = Field(description="Raw score that is mapped to 1.")
    clip: bool = Field(
        False,
        description=(
            "Whether a raw score outside of the range counts as the nearest end of the range. If false,"
            " such a score is an error."
        ),
    )


class Grader(Model):
    """A grader, which gives each completion a score from 0 to 1. The reward of a completion is the weighted
    mean of the scores of all graders. Exactly one kind of grader is set, such as exactMatch or python.
    """

    name: str = Field(
        min_length=1,
        **LABEL.limits(),
        description="Name of the grader in metrics and status. It is unique within the job.",
    )
    weight: float = Field(
        1.0,
        ge=0,
        le=1000,
        description=(
            "Weight of the grader in the reward. A grader of weight 0 is a canary: its scores are shown,"
            " but do not change the reward."
        ),
    )
    scale: Scale | None = Field(
        None,
        description=(
            "Range of raw scores that is mapped onto 0…1. A score outside this range is an error if clip is"
            " false."
        ),
    )
    timeout_seconds: float = Field(
        10.0,
        ge=0.1,
        le=600,
        description=(
            "Time limit of one score, in seconds. For http and model it is the time limit of one request."
        ),
    )
    on_error: Literal["zero", "drop", "fail"] | None = Field(
        None,
        description=(
            "What happens if the grader fails: its score is 0 (zero), the rollout is not used (drop), or the"
            " run ends (fail). The default is drop for http, model and formula, and zero for the other"
            " kinds. If a canary (a grader of weight 0) fails, only its own score is missing."
        ),
    )
    reads: Literal["answer", "whole"] | None = Field(
        None,
        description=(
            "What the grader reads: only the answer after a thinking model's thought (answer), or the whole"
            " completion (whole). If absent, it is whole for python, http and regex, and answer for the"
            " other kinds."
        ),
    )
    exact_match: ExactMatch | None = Field(
        None, description="Compares the completion's text with a field of the row."
    )
    numeric: Numeric | None = Field(
        None, description="Compares a number in the completion with a field of the row."
    )
    math: Math | None = Field(
        None,
        description="Checks whether the completion's answer is symbolically equal to a field of the row.",
    )
    regex: Regex | None = Field(None, description="Matches the completion with a regular expression.")
    json_schema: JsonSchema | None = Field(
        None, description="Checks whether the completion is JSON that is valid under a schema."
    )
    text_similarity: TextSimilarity | None = Field(
        None, description="Measures how similar the completion is to a field of the row."
    )
    string_check: StringCheck | None = Field(
        None, description="Compares two texts that are filled in from templates."
    )
    formula: Formula | None = Field(
        None, description="Computes a score from the scores of graders above this one."
    )
    python: Python | None = Field(None, description="Your own Python function.")
    http: Http | None = Field(None, description="Your own web service.")
    model: ModelJudge | None = Field(None, description="A judge model.")

    @property
    def kind(self) -> str:
        """The kind of the grader, as the name of a Python field such as ``python`` or ``exact_match``."""
        return next(kind for kind in GRADER_KINDS if getattr(self, kind) is not None)

    @property
    def is_canary(self) -> bool:
        """Whether the grader is a canary: its scores are shown, but do not count for the reward."""
        return self.weight == 0

    @property
    def error_policy(self) -> Literal["zero", "drop", "fail"]:
        """What happens if the grader fails: ``zero``, ``drop`` or ``fail``.

        It is the value of ``onError``. If ``onError`` is absent, it is the default of the grader's kind.
        """
        if self.on_error is not None:
            return self.on_error
        return "drop" if self.kind in ("http", "model", "formula") else "zero"

    @property
    def reads_answer(self) -> bool:
        """Whether the grader reads only the answer in a completion, without a model's thought before it.

        If the field ``reads`` is absent, this depends on the kind of the grader.
        """
        if self.reads is not None:
            return self.reads == "answer"
        return self.kind not in ("python", "http", "regex")


GRADER_KINDS = (
    "exact_match",
    "numeric",
    "math",
    "regex",
    "json_schema",
    "text_similarity",
    "string_check",
    "formula",
    "python",
    "http",
    "model",
)
