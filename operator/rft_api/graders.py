"""Graders: they give each completion a score between 0 and 1."""

from typing import Literal

from pydantic import Field

from rft_api.base import Int, Model
from rft_api.forms import ADDRESS, IDENTIFIER, LABEL
from rft_api.sources import SecretKeyRef


class ExactMatch(Model):
    """The score is 1 if the completion's text equals the row's field, else 0."""

    field: str = Field("answer", description="Field of the row that holds the expected text.")
    ignore_case: bool = Field(False, description="Compare without regard to case.")
    strip: bool = Field(True, description="Ignore white space at both ends.")


class Numeric(Model):
    """The score is 1 if the number found in the completion equals the row's field, else 0."""

    field: str = Field("answer", description="Field of the row that holds the expected number.")
    extract: Literal["last", "first", "boxed", "marker"] = Field(
        "last", description="Which number counts: the last, the first, the one in \\boxed{}, or after marker."
    )
    marker: str | None = Field(None, description="Text before the number, with extract marker, e.g. ####.")
    tolerance: float = Field(0.0, ge=0, description="Largest absolute difference that still counts as equal.")


class Math(Model):
    """The score is 1 if the completion's answer is symbolically equal to the row's field, else 0."""

    field: str = Field("answer", description="Field of the row that holds the expected expression.")


class Regex(Model):
    """The score is 1 if the pattern matches, else 0."""

    pattern: str = Field(min_length=1, description="Regular expression in Python's syntax.")
    full_match: bool = Field(False, description="The whole completion must match, not a part of it.")


class JsonSchema(Model):
    """The score is 1 if the completion is JSON that is valid under a schema, else 0."""

    schema_text: str = Field(alias="schema", min_length=2, description="The JSON schema, as JSON text.")


class TextSimilarity(Model):
    """The score is the similarity between the completion and the row's field."""

    field: str = Field("answer", description="Field of the row that holds the reference text.")
    metric: Literal["levenshtein", "jaroWinkler", "tokenSet"] = Field(
        "levenshtein", description="Which similarity."
    )


class ConfigMapCode(Model):
    """Python code in a ConfigMap."""

    name: str = Field(min_length=1, description="Name of the ConfigMap.")
    key: str = Field(
        "grader.py",
        min_length=1,
        description="Key that holds the Python source; it can import the other keys.",
    )


class Python(Model):
    """The score is the result of your own Python function, which runs in a separate container.

    Exactly one of the sources of the code is set.
    """

    inline: str | None = Field(None, min_length=1, description="Python source that defines the function.")
    config_map: ConfigMapCode | None = Field(None, description="Python source in a ConfigMap.")
    function: str = Field(
        "grade",
        **IDENTIFIER.limits(),
        description=(
            "Function called as grade(completion, row); also as TRL, OpenAI, eval-protocol and verl call"
            " theirs, by the names of its parameters."
        ),
    )


class Http(Model):
    """The scores are those that a web service returns for a batch of completions."""

    url: str = Field(**ADDRESS.limits(), description="Address that takes a batch by POST.")
    secret_ref: SecretKeyRef | None = Field(None, description="Bearer token, by reference only.")


class ModelJudge(Model):
    """The score is given by a judge model."""

    url: str = Field(**ADDRESS.limits(), description="Base URL of an OpenAI-compatible endpoint.")
    model: str = Field(min_length=1, description="Name of the judge model.")
    prompt: str = Field(min_length=1, description="Instruction with {prompt}, {completion} and row fields.")
    secret_ref: SecretKeyRef | None = Field(None, description="API key, by reference only.")
    max_tokens: Int = Field(
        512,
        ge=1,
        le=32768,
        description="Longest reply, in tokens. A reply cut there counts only with a whole JSON score object.",
    )


class Scale(Model):
    """The range of raw scores that is mapped onto 0…1."""

    min: float = Field(description="Raw score that becomes 0.")
    max: float = Field(description="Raw score that becomes 1.")


class Grader(Model):
    """One term of the reward Σ wᵢsᵢ / Σ wᵢ. Exactly one kind."""

    name: str = Field(
        min_length=1,
        **LABEL.limits(),
        description="Name in metrics and status; unique within the job.",
    )
    weight: float = Field(
        1.0,
        ge=0,
        le=1000,
        description="Weight in the reward. 0 makes a canary: scored and charted, but never trained on.",
    )
    scale: Scale | None = Field(None, description="Raw range mapped onto 0…1; a score outside is an error.")
    timeout_seconds: float = Field(
        10.0,
        ge=0.1,
        le=600,
        description="Longest time one score may take, in seconds; of http and model, one request.",
    )
    on_error: Literal["zero", "drop", "fail"] | None = Field(
        None,
        description=(
            "After an error: score zero (default of python), drop the rollout (default of http and model),"
            " or fail the run. An error of a canary, weight 0, only leaves out its score."
        ),
    )
    reads: Literal["answer", "whole"] | None = Field(
        None,
        description=(
            "What the grader is given: the answer behind a thinking model's thought, or the whole completion."
            " If absent: whole for python, http and regex, answer for the others."
        ),
    )
    exact_match: ExactMatch | None = Field(None, description="Text equal to a field of the row.")
    numeric: Numeric | None = Field(None, description="Number equal to a field of the row.")
    math: Math | None = Field(None, description="Expression symbolically equal to a field of the row.")
    regex: Regex | None = Field(None, description="Text that matches a pattern.")
    json_schema: JsonSchema | None = Field(None, description="JSON valid under a schema.")
    text_similarity: TextSimilarity | None = Field(None, description="Text similar to a field of the row.")
    python: Python | None = Field(None, description="Your own Python function.")
    http: Http | None = Field(None, description="Your own web service.")
    model: ModelJudge | None = Field(None, description="A judge model.")

    @property
    def kind(self) -> str:
        """The kind of the grader as a Python name, such as ``python`` or ``exact_match``."""
        return next(kind for kind in GRADER_KINDS if getattr(self, kind) is not None)

    @property
    def is_canary(self) -> bool:
        """Whether the grader is a canary: its scores are shown, but do not count for the reward."""
        return self.weight == 0

    @property
    def error_policy(self) -> Literal["zero", "drop", "fail"]:
        """The value of ``onError``; if it is absent, the default of the grader's kind."""
        if self.on_error is not None:
            return self.on_error
        return "drop" if self.kind in ("http", "model") else "zero"

    @property
    def reads_answer(self) -> bool:
        """Whether the grader reads only the answer, without the thought: ``reads``, or the default of its
        kind.
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
    "python",
    "http",
    "model",
)
