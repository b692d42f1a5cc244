"""The pydantic classes for ``spec.environment``: the settings of an environment.

An environment is a program that answers the model over several turns of a rollout, and then gives a reward.
"""

from typing import Literal

from pydantic import Field

from rft_api.base import Int, Model, known
from rft_api.forms import IDENTIFIER
from rft_api.graders import ConfigMapCode, Grader, Python, Scale

ENVIRONMENT = "environment"
"""The name under which the environment's reward appears among the scores of the graders."""


class EnvironmentPython(Model):
    """The user's Python class for an environment, in the form of TRL's environments.

    The class has the methods reset and get_reward. Its other public methods are tools for the model. It runs
    in the container of the python graders. Exactly one source of its code is set.
    """

    inline: str | None = Field(None, min_length=1, description="Python source that defines the class.")
    config_map: ConfigMapCode | None = Field(None, description="Python source in a ConfigMap.")
    class_name: str = Field("Environment", **IDENTIFIER.limits(), description="Name of the class.")


class Environment(Model):
    """An environment: a program that the model talks to over several turns of a rollout.

    It offers tools to the model, answers with messages, and gives a reward at the end.
    """

    python: EnvironmentPython = Field(description="Your own Python class.")
    weight: float = Field(
        1.0,
        ge=0,
        le=1000,
        description="Weight of the environment's reward, which is combined with the scores of the graders.",
    )
    scale: Scale | None = Field(
        None, description="Range of the environment's reward that is mapped onto 0…1. If absent, 0 to 1."
    )
    on_error: Literal["zero", "drop", "fail"] = Field(
        "drop",
        description=(
            "What happens if the environment fails: its reward is 0 (zero), the rollout is not used (drop),"
            " or the run ends (fail)."
        ),
    )
    tools: Literal["template", "text"] | None = Field(
        None,
        description=(
            "How the model sees tools and calls them: by its chat template (template), or as text in the"
            " system message (text). If absent: template if transformers can read the model's tool calls,"
            " else text."
        ),
    )
    max_turns: Int = Field(8, ge=1, le=64, description="Largest number of the model's turns in a rollout.")
    max_tokens: Int | None = Field(
        None,
        ge=16,
        description=(
            "Largest number of tokens that are sampled in all turns of a rollout together. If absent, it is"
            " maxTurns times sampling.maxTokens. sampling.maxTokens is the limit for one turn."
        ),
    )
    timeout_seconds: float = Field(
        10.0, ge=0.1, le=600, description="Time limit of one call of the environment, in seconds."
    )
    max_seconds: float = Field(
        600.0, ge=1, le=86400, description="Time limit of a whole rollout, in seconds of wall time."
    )
    concurrency: Int = Field(
        16,
        ge=1,
        le=64,
        description=(
            "Largest number of rollouts at the same time. Each rollout has an environment process of its own."
        ),
    )

    def most_tokens(self, each: int) -> int:
        """Return the largest number of tokens that may be sampled in all turns of a rollout together.

        ``each`` is the largest number of tokens that may be sampled in one turn.
        """
        return self.max_tokens or self.max_turns * each

    def as_grader(self) -> Grader:
        """Return a python grader that stands for the environment: its score is the environment's reward."""
        code = known(inline=self.python.inline, config_map=self.python.config_map)
        return Grader(
            name=ENVIRONMENT,
            weight=self.weight,
            timeout_seconds=self.timeout_seconds,
            on_error=self.on_error,
            python=Python(function=self.python.class_name, **code),
            **known(scale=self.scale),
        )
