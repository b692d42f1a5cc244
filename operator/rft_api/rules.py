"""Rules that several fields of an RFTJob's spec must satisfy together. ``RULES`` is the list of all rules.

A rule is a pure function. It gets a spec, and yields a problem for each place where the spec breaks the rule.
The function's docstring says what the rule requires. Most rules are also written in CEL, so that the API
server makes the same check as the function.

The range of a single field is in the pydantic class that has the field. The module ``immutability`` says
which fields may change after the start of a run.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from rft_api import annotations
from rft_api.base import Model
from rft_api.cel import Cel, exactly_one_of
from rft_api.environment import ENVIRONMENT, EnvironmentPython
from rft_api.graders import GRADER_KINDS, Grader, Python
from rft_api.job import RFTJobSpec
from rft_api.lifecycle import ResultTarget, Stop, read_moment
from rft_api.problems import EXAMPLES, Problem
from rft_api.resources import EnvVar, EnvVarSource, ExtraVolume, PodResourceClaim
from rft_api.sources import Dataset, ModelCache, Storage

Check = Callable[[RFTJobSpec], Iterator[Problem]]

DATASET_SOURCES = ("config_map", "persistent_volume_claim", "uri")
STORAGE_KINDS = ("persistent_volume_claim", "claim_template", "ephemeral")
OUTPUT_KINDS = ("hub", "s3")
CACHE_CLAIMS = ("persistent_volume_claim", "claim_template")
CODE_SOURCES = ("inline", "config_map")
VOLUME_SOURCES = ("persistent_volume_claim", "config_map")
CLAIM_SOURCES = ("resource_claim_name", "resource_claim_template_name")
VALUE_FIELDS = ("value", "value_from", "secret_ref")
VARIABLE_SOURCES = ("secret_key_ref", "config_map_key_ref", "field_ref", "resource_field_ref")


class Rule(NamedTuple):
    """A rule about several fields of a spec: a function that checks a spec, and the same check in CEL."""

    check: Check
    cel: tuple[Cel, ...] = ()
    no_cel: str = ""
    """Why the API server cannot check the rule in CEL. Empty if it can."""

    @property
    def name(self) -> str:
        """The name of the rule, which is the name of its Python function."""
        return self.check.__name__

    @property
    def text(self) -> str:
        """What the rule requires, as a text for users: the docstring of its Python function."""
        return inspect.getdoc(self.check) or ""

    def __call__(self, spec: RFTJobSpec) -> Iterator[Problem]:
        """Yield a problem for each place where ``spec`` breaks the rule."""
        return self.check(spec)


def in_cel(*texts: Cel) -> Callable[[Check], Rule]:
    """Return a decorator that makes a rule from a function that checks a spec.

    ``texts`` are CEL rules with which the API server makes the same check as the function.
    """
    return lambda check: Rule(check, cel=texts)


def not_in_cel(reason: str) -> Callable[[Check], Rule]:
    """Return a decorator that makes a rule without CEL from a function that checks a spec.

    ``reason`` says why the API server cannot or need not check this rule in CEL.
    """
    return lambda check: Rule(check, no_cel=reason)


def _aliases(model: type[Model], fields: Sequence[str]) -> list[str]:
    return [model.model_fields[field].alias or field for field in fields]


def _exactly_one(path: str, value: Model, fields: Sequence[str]) -> Iterator[Problem]:
    names = _aliases(type(value), fields)
    given = [name for name, field in zip(names, fields, strict=True) if getattr(value, field) is not None]
    if len(given) == 1:
        return
    if given:
        found = f"{', '.join(given)} are set; keep one of them"
    else:
        example = EXAMPLES.get(path) or _ONE_OF_THESE.get(path.rpartition(".")[2], names[0])
        found = f"none is set; write {example}"
    yield Problem(path, f"needs exactly one of {', '.join(names)}; {found}")


_ONE_OF_THESE = {"python": "inline: | with the code below it"}
"""The advice for an object that needs exactly one of several fields and has none of them: a field to write.

The key is the name of the object. If an object has neither an entry here nor an example, the advice is the
name of its first field."""


@in_cel(
    exactly_one_of("spec.dataset", _aliases(Dataset, DATASET_SOURCES)),
    exactly_one_of("spec.evaluation.dataset", _aliases(Dataset, DATASET_SOURCES)),
)
def dataset_has_one_source(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require exactly one source for each dataset: a ConfigMap, a PersistentVolumeClaim or a URI."""
    yield from _exactly_one("spec.dataset", spec.dataset, DATASET_SOURCES)
    if spec.evaluation.dataset is not None:
        yield from _exactly_one("spec.evaluation.dataset", spec.evaluation.dataset, DATASET_SOURCES)


def _prompt_or_messages(path: str) -> Cel:
    return Cel(
        f"{path}.columns",
        "!('prompt' in self && 'messages' in self)",
        f"{path}.columns: prompt and messages both give the prompt; leave one of them out",
    )


@in_cel(_prompt_or_messages("spec.dataset"), _prompt_or_messages("spec.evaluation.dataset"))
def columns_name_one_prompt(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require that the ``columns`` of a dataset do not set both ``prompt`` and ``messages``."""
    datasets = {"spec.dataset": spec.dataset, "spec.evaluation.dataset": spec.evaluation.dataset}
    for path, dataset in datasets.items():
        if dataset is not None and {"prompt", "messages"} <= (dataset.columns or {}).keys():
            yield Problem(
                f"{path}.columns",
                "prompt and messages both give the prompt; leave one of them out",
            )


@in_cel(exactly_one_of("spec.storage", _aliases(Storage, STORAGE_KINDS)))
def storage_has_one_kind(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require exactly one kind of storage for a run: an existing claim, a claim template, or an emptyDir."""
    yield from _exactly_one("spec.storage", spec.storage, STORAGE_KINDS)


@in_cel(exactly_one_of("spec.model.cache", _aliases(ModelCache, CACHE_CLAIMS)))
def model_cache_has_one_claim(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require exactly one claim for the cache of models from the hub: an existing claim, or a template."""
    if spec.model.cache is not None:
        yield from _exactly_one("spec.model.cache", spec.model.cache, CACHE_CLAIMS)


@in_cel(exactly_one_of("spec.output", _aliases(ResultTarget, OUTPUT_KINDS)))
def output_has_one_kind(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require exactly one place to which the adapter is copied: a repository of the hub, or a bucket."""
    if spec.output is not None:
        yield from _exactly_one("spec.output", spec.output, OUTPUT_KINDS)


@in_cel(exactly_one_of("spec.graders[]", _aliases(Grader, GRADER_KINDS)))
def grader_has_one_kind(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require exactly one kind for each grader, such as ``exactMatch`` or ``python``."""
    for i, grader in enumerate(spec.graders):
        yield from _exactly_one(f"spec.graders[{i}]", grader, GRADER_KINDS)


@in_cel(exactly_one_of("spec.graders[].python", _aliases(Python, CODE_SOURCES)))
def python_grader_has_one_source(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require exactly one source for the code of each python grader: ``inline`` or a ConfigMap."""
    for i, grader in enumerate(spec.graders):
        if grader.python is not None:
            yield from _exactly_one(f"spec.graders[{i}].python", grader.python, CODE_SOURCES)


@not_in_cel(
    "in the schema the list is a map by name, so the API server itself refuses two graders with the same name"
)
def grader_names_are_unique(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require that no two graders have the same name, because metrics and status use the names."""
    seen: dict[str, int] = {}
    for i, grader in enumerate(spec.graders):
        if grader.name in seen:
            yield Problem(
                f"spec.graders[{i}].name",
                f"{grader.name!r} is also the name of spec.graders[{seen[grader.name]}];"
                f" give each grader its own name, such as {grader.name}-{i + 1}",
            )
        seen.setdefault(grader.name, i)


@in_cel(
    Cel(
        "spec.graders[].scale",
        "self.min < self.max",
        "spec.graders[].scale: min must be below max; raise max or lower min",
    )
)
def grader_scale_rises(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require that ``min`` is less than ``max`` in the ``scale`` of each grader."""
    for i, grader in enumerate(spec.graders):
        if grader.scale is not None and not grader.scale.min < grader.scale.max:
            yield Problem(
                f"spec.graders[{i}].scale",
                f"min {grader.scale.min:g} must be below max {grader.scale.max:g};"
                f" write {{min: {grader.scale.max:g}, max: {grader.scale.min:g}}}"
                if grader.scale.min > grader.scale.max
                else f"min {grader.scale.min:g} must be below max {grader.scale.max:g}; raise max",
            )


@in_cel(
    Cel(
        "spec",
        "self.graders.exists(grader, !has(grader.weight) || grader.weight > 0.0)"
        " || (has(self.environment) && (!has(self.environment.weight) || self.environment.weight > 0.0))",
        "spec.graders: one weight must be above 0, since graders of weight 0 make no reward; raise one"
        " weight",
    )
)
def a_grader_makes_the_reward(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require that at least one grader, or the environment, has a weight above 0, so that there is a reward.

    A grader of weight 0 is a canary, which does not count for the reward.
    """
    if all(grader.is_canary for grader in spec.scored_by):
        yield Problem(
            "spec.graders",
            "every weight is 0, so there is no reward to train on; give one grader a weight such as 1"
            if spec.scored_by
            else "is empty, so there is no reward to train on; add a grader, or set spec.environment",
        )


@in_cel(exactly_one_of("spec.environment.python", _aliases(EnvironmentPython, CODE_SOURCES)))
def environment_has_one_source(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require exactly one source for the code of the environment: ``inline`` or a ConfigMap."""
    if spec.environment is not None:
        yield from _exactly_one("spec.environment.python", spec.environment.python, CODE_SOURCES)


@in_cel(
    Cel(
        "spec.environment.scale",
        "self.min < self.max",
        "spec.environment.scale: min must be below max; raise max or lower min",
    )
)
def environment_scale_rises(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require that ``min`` is less than ``max`` in the ``scale`` of the environment."""
    scale = spec.environment.scale if spec.environment is not None else None
    if scale is not None and not scale.min < scale.max:
        said = f"min {scale.min:g} must be below max {scale.max:g}; raise max or lower min"
        yield Problem("spec.environment.scale", said)


@in_cel(
    Cel(
        "spec",
        f"!has(self.environment) || !self.graders.exists(grader, grader.name == '{ENVIRONMENT}')",
        f"spec.graders: {ENVIRONMENT} is the name of the environment's reward; give the grader another name",
    )
)
def no_grader_has_the_environments_name(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require that no grader is called ``environment`` in a job with an environment.

    The reward of the environment has this name.
    """
    for i, grader in enumerate(spec.graders):
        if spec.environment is not None and grader.name == ENVIRONMENT:
            yield Problem(
                f"spec.graders[{i}].name",
                f"{ENVIRONMENT!r} is the name of the environment's reward; give the grader another name",
            )


@in_cel(
    Cel(
        "spec.graders[].numeric",
        "(has(self.extract) && self.extract == 'marker') == has(self.marker)",
        "spec.graders[].numeric: marker must be set if extract is marker, and only then; set both or neither",
    )
)
def marker_goes_with_marker_extraction(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require that ``numeric.marker`` is set if ``numeric.extract`` is ``marker``, and only then."""
    for i, grader in enumerate(spec.graders):
        numeric = grader.numeric
        if numeric is not None and (numeric.extract == "marker") != (numeric.marker is not None):
            yield Problem(
                f"spec.graders[{i}].numeric",
                "marker must be set if extract is marker, and only then; set both or neither",
            )


@in_cel(
    Cel(
        "spec",
        "!has(self.training.maxContextLength) || self.sampling.maxTokens < self.training.maxContextLength",
        "spec.sampling.maxTokens must be smaller than spec.training.maxContextLength, which limits prompt"
        " plus completion; lower the one or raise the other",
    )
)
def completion_fits_context(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require that ``maxTokens`` is less than ``maxContextLength``, so that there is room for a prompt."""
    context = spec.training.max_context_length
    if context is not None and spec.sampling.max_tokens >= context:
        yield Problem(
            "spec.sampling.maxTokens",
            f"{spec.sampling.max_tokens} leaves no room for a prompt in spec.training.maxContextLength"
            f" {context}; maxTokens must be smaller",
        )


@in_cel(
    Cel(
        "spec.training",
        "!has(self.maxContextLength) || self.maxContextLength <= self.batchSizeTokens",
        "spec.training.maxContextLength must be at most spec.training.batchSizeTokens;"
        " lower the one or raise the other",
    )
)
def context_fits_batch(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require that ``maxContextLength`` is at most ``batchSizeTokens``, so that a batch has room
    for the longest sequence.
    """
    context = spec.training.max_context_length
    if context is not None and context > spec.training.batch_size_tokens:
        yield Problem(
            "spec.training.maxContextLength",
            f"{context} is above spec.training.batchSizeTokens {spec.training.batch_size_tokens}; lower"
            " maxContextLength, or raise batchSizeTokens",
        )


@in_cel(
    Cel(
        "spec",
        "has(self.training.maxContextLength) || self.sampling.maxTokens < self.training.batchSizeTokens",
        "spec.sampling.maxTokens must be smaller than spec.training.batchSizeTokens, which limits prompt"
        " plus completion; lower the one or raise the other",
    )
)
def completion_fits_default_context(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require that ``maxTokens`` is less than ``batchSizeTokens`` if ``maxContextLength`` is absent."""
    training = spec.training
    if training.max_context_length is None and spec.sampling.max_tokens >= training.batch_size_tokens:
        yield Problem(
            "spec.sampling.maxTokens",
            f"{spec.sampling.max_tokens} must be below spec.training.batchSizeTokens"
            f" {training.batch_size_tokens}, which limits prompt plus completion",
        )


@in_cel(
    Cel(
        "spec.template.env[]",
        "[has(self.value), has(self.valueFrom), has(self.secretRef)].filter(given, given).size() <= 1",
        "spec.template.env[] may have only one of value, valueFrom and secretRef; remove the others",
    )
)
def variable_has_one_value(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require that each environment variable has at most one of value, valueFrom and secretRef."""
    for i, variable in enumerate(_variables(spec)):
        given = [
            name
            for name, field in zip(_aliases(EnvVar, VALUE_FIELDS), VALUE_FIELDS, strict=True)
            if getattr(variable, field) is not None
        ]
        if len(given) > 1:
            yield Problem(f"spec.template.env[{i}]", f"has {' and '.join(given)}; keep one of them")


def _variables(spec: RFTJobSpec) -> Sequence[EnvVar]:
    return (spec.template.env if spec.template is not None else None) or []


@in_cel(exactly_one_of("spec.template.env[].valueFrom", _aliases(EnvVarSource, VARIABLE_SOURCES)))
def variable_has_one_source(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require exactly one source in ``valueFrom`` of an environment variable, such as ``secretKeyRef``."""
    for i, variable in enumerate(_variables(spec)):
        if variable.value_from is not None:
            yield from _exactly_one(
                f"spec.template.env[{i}].valueFrom", variable.value_from, VARIABLE_SOURCES
            )


@in_cel(exactly_one_of("spec.template.resourceClaims[]", _aliases(PodResourceClaim, CLAIM_SOURCES)))
def resource_claim_has_one_source(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require exactly one source for each resource claim of the pod: a ResourceClaim or a
    ResourceClaimTemplate.
    """
    for i, found in enumerate(_resource_claims(spec)):
        yield from _exactly_one(f"spec.template.resourceClaims[{i}]", found, CLAIM_SOURCES)


@in_cel(
    Cel(
        "spec",
        "!has(self.resources) || !has(self.resources.gpuClaim)"
        " || (has(self.template) && has(self.template.resourceClaims)"
        " && self.template.resourceClaims.exists(claim, claim.name == self.resources.gpuClaim))",
        "spec.resources.gpuClaim must be the name of a claim in spec.template.resourceClaims; add the claim,"
        " or leave the field out",
    )
)
def gpu_claim_is_a_claim_of_the_pod(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require that ``resources.gpuClaim`` is the name of a claim in ``template.resourceClaims``."""
    name = spec.resources.gpu_claim if spec.resources is not None else None
    names = [claim.name for claim in _resource_claims(spec)]
    if name is not None and name not in names:
        known = f"the claims there are {', '.join(names)}" if names else "there is no claim"
        yield Problem(
            "spec.resources.gpuClaim",
            f"{name!r} is no claim in spec.template.resourceClaims: {known}; add the claim, or leave this"
            " field out",
        )


def _resource_claims(spec: RFTJobSpec) -> Sequence[PodResourceClaim]:
    return (spec.template.resource_claims if spec.template is not None else None) or []


@in_cel(annotations.cel())
def annotations_widen_no_rights(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require that no annotation in the template gives the pod more rights.

    These are rights that no field of an RFTJob can give, such as those of a security context.
    """
    given = (spec.template.annotations if spec.template is not None else None) or {}
    for key, value in given.items():
        problem = annotations.problem_of(key, value)
        if problem is not None:
            yield Problem(f"spec.template.annotations.{key}", problem)


@in_cel(exactly_one_of("spec.template.volumes[]", _aliases(ExtraVolume, VOLUME_SOURCES)))
def extra_volume_has_one_source(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require exactly one source for each volume of the template: a PersistentVolumeClaim or a ConfigMap."""
    volumes = (spec.template.volumes if spec.template is not None else None) or []
    for i, volume in enumerate(volumes):
        yield from _exactly_one(f"spec.template.volumes[{i}]", volume, VOLUME_SOURCES)


@in_cel(
    Cel(
        "spec",
        "!self.suspend || !has(self.storage.ephemeral)",
        "spec.suspend must be false with spec.storage.ephemeral, whose checkpoints are lost with the pod;"
        " use a claim as storage, or set spec.cancel",
    )
)
def suspending_needs_storage(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require that ``suspend`` is false if the storage is an emptyDir.

    Kubernetes deletes the emptyDir with the pod, so a suspended run could not resume.
    """
    if spec.suspend and spec.storage.ephemeral is not None:
        yield Problem(
            "spec.suspend",
            "true would lose the run: with storage.ephemeral its checkpoints are lost with the pod; use a"
            " claim as storage, or set spec.cancel",
        )


@in_cel(
    Cel(
        "spec.stop.deadline",
        # timestamp() fails for a date that does not exist.
        "timestamp(self) >= timestamp('2000-01-01T00:00:00Z')",
        "must be a date and a time that exist",
    )
)
def deadline_is_in_the_calendar(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require that the date and the time of ``stop.deadline`` exist.

    The regular expression of the field would also accept the 31st of February.
    """
    deadline = spec.stop.deadline if spec.stop is not None else None
    if deadline is None:
        return
    try:
        read_moment(deadline)
    except ValueError:
        said = f"{deadline!r} is not a date and a time that exist; write one such as 2027-01-31T18:00:00Z"
        yield Problem("spec.stop.deadline", said)


def _needs_evaluation(parent: str, field: str) -> Cel:
    path = f"spec.{parent}.{field}"
    return Cel(
        "spec",
        f"!(has(self.{parent}) && has(self.{parent}.{field}))"
        " || has(self.evaluation.dataset) || self.evaluation.fraction > 0.0",
        f"{path} needs held-out rows, and spec.evaluation.fraction 0 turns the evaluation off; set the"
        " fraction to 0.1, or leave this field out",
    )


@in_cel(
    _needs_evaluation("evaluation", "everySteps"),
    _needs_evaluation("stop", "targetReward"),
    _needs_evaluation("stop", "patience"),
)
def held_out_reward_needs_an_evaluation(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require that the evaluation is on if a field needs it, such as ``stop.patience``."""
    stop = spec.stop or Stop()
    fields = {
        "spec.evaluation.everySteps": spec.evaluation.every_steps,
        "spec.stop.targetReward": stop.target_reward,
        "spec.stop.patience": stop.patience,
    }
    for path, value in fields.items():
        if value is not None and spec.evaluation.is_off:
            yield Problem(
                path,
                f"{value:g} needs held-out rows, and spec.evaluation.fraction 0 turns the evaluation off; set"
                " the fraction to 0.1, or leave this field out",
            )


@in_cel(
    Cel(
        "spec",
        "!has(self.output) || self.output.adapter != 'best'"
        " || has(self.evaluation.dataset) || self.evaluation.fraction > 0.0",
        "spec.output.adapter best needs held-out rows, and spec.evaluation.fraction 0 turns the evaluation"
        " off; set the fraction to 0.1, or write adapter: final",
    )
)
def best_output_needs_an_evaluation(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require that the evaluation is on if ``output.adapter`` is ``best``.

    The best adapter is the one with the highest held-out reward.
    """
    if spec.output is not None and spec.output.adapter == "best" and spec.evaluation.is_off:
        yield Problem(
            "spec.output.adapter",
            "best needs held-out rows, and spec.evaluation.fraction 0 turns the evaluation off; set the"
            " fraction to 0.1, or write adapter: final",
        )


@in_cel(
    Cel(
        "spec",
        "!has(self.stop) || !has(self.stop.canary)"
        " || self.graders.exists(grader, has(grader.weight) && grader.weight == 0.0)",
        "spec.stop.canary needs a grader of weight 0, and there is none; give a grader the weight 0, or"
        " remove spec.stop.canary",
    )
)
def canary_stop_has_a_canary(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require at least one canary, a grader of weight 0, if ``stop.canary`` is set."""
    watches = spec.stop is not None and spec.stop.canary is not None
    if watches and not any(grader.is_canary for grader in spec.graders):
        yield Problem(
            "spec.stop.canary",
            "needs a grader of weight 0, and there is none; give one grader weight 0, or leave this field"
            " out",
        )


@in_cel(
    Cel(
        "spec.training",
        "!self.deterministic || !has(self.cpuDtype) || self.cpuDtype == 'float32'",
        "spec.training.cpuDtype must be float32 with spec.training.deterministic, since results in bfloat16"
        " on a CPU cannot be repeated; leave one of the two fields out",
    )
)
def deterministic_runs_are_in_float32(spec: RFTJobSpec) -> Iterator[Problem]:
    """Require that ``cpuDtype`` is ``float32`` or absent if ``deterministic`` is true.

    In bfloat16 on a CPU, the sampler's results are not reproducible.
    """
    training = spec.training
    if training.deterministic and training.cpu_dtype not in (None, "float32"):
        yield Problem(
            "spec.training.cpuDtype",
            f"results in {training.cpu_dtype} on a CPU cannot be repeated, but spec.training.deterministic"
            " is true; set float32, or leave one of the two fields out",
        )


RULES: tuple[Rule, ...] = (
    dataset_has_one_source,
    columns_name_one_prompt,
    storage_has_one_kind,
    model_cache_has_one_claim,
    output_has_one_kind,
    grader_has_one_kind,
    python_grader_has_one_source,
    grader_names_are_unique,
    grader_scale_rises,
    a_grader_makes_the_reward,
    environment_has_one_source,
    environment_scale_rises,
    no_grader_has_the_environments_name,
    held_out_reward_needs_an_evaluation,
    best_output_needs_an_evaluation,
    canary_stop_has_a_canary,
    marker_goes_with_marker_extraction,
    completion_fits_context,
    context_fits_batch,
    completion_fits_default_context,
    variable_has_one_value,
    variable_has_one_source,
    resource_claim_has_one_source,
    gpu_claim_is_a_claim_of_the_pod,
    annotations_widen_no_rights,
    extra_volume_has_one_source,
    suspending_needs_storage,
    deadline_is_in_the_calendar,
    deterministic_runs_are_in_float32,
)


def problems(spec: RFTJobSpec) -> list[Problem]:
    """Return a problem for each place where a spec breaks one of ``RULES``, in the order of the rules."""
    return [problem for rule in RULES for problem in rule(spec)]
