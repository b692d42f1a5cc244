"""Rules across fields. Read top to bottom, the list at the end is the specification.

A rule is a pure function from a spec to the problems it sees. Ranges of single fields are not
here: they stand in the models.
"""

from collections.abc import Callable, Iterator

from rft_api.graders import GRADER_KINDS
from rft_api.job import RFTJobSpec
from rft_api.problems import Problem

Rule = Callable[[RFTJobSpec], Iterator[Problem]]


def _exactly_one(path: str, options: dict[str, object | None]) -> Iterator[Problem]:
    given = [name for name, value in options.items() if value is not None]
    if len(given) == 1:
        return
    found = f"{', '.join(given)} are set" if given else "none is set"
    yield Problem(path, f"needs exactly one of {', '.join(options)}; {found}")


def dataset_has_one_source(spec: RFTJobSpec) -> Iterator[Problem]:
    """A dataset, training or evaluation, comes from exactly one place."""
    for path, dataset in (
        ("spec.dataset", spec.dataset),
        ("spec.evaluation.dataset", spec.evaluation.dataset),
    ):
        if dataset is not None:
            yield from _exactly_one(
                path,
                {
                    "configMap": dataset.config_map,
                    "persistentVolumeClaim": dataset.persistent_volume_claim,
                    "uri": dataset.uri,
                },
            )


def storage_has_one_kind(spec: RFTJobSpec) -> Iterator[Problem]:
    """The run's folder lives in exactly one place."""
    yield from _exactly_one(
        "spec.storage",
        {
            "persistentVolumeClaim": spec.storage.persistent_volume_claim,
            "claimTemplate": spec.storage.claim_template,
            "ephemeral": spec.storage.ephemeral,
        },
    )


def grader_has_one_kind(spec: RFTJobSpec) -> Iterator[Problem]:
    """A grader is of exactly one kind."""
    for i, grader in enumerate(spec.graders):
        aliases = {
            type(grader).model_fields[kind].alias or kind: getattr(grader, kind) for kind in GRADER_KINDS
        }
        yield from _exactly_one(f"spec.graders[{i}]", aliases)


def python_grader_has_one_source(spec: RFTJobSpec) -> Iterator[Problem]:
    """The code of a python grader comes from exactly one place."""
    for i, grader in enumerate(spec.graders):
        if grader.python is not None:
            yield from _exactly_one(
                f"spec.graders[{i}].python",
                {"inline": grader.python.inline, "configMap": grader.python.config_map},
            )


def grader_names_are_unique(spec: RFTJobSpec) -> Iterator[Problem]:
    """Metrics are reported by grader name."""
    seen: dict[str, int] = {}
    for i, grader in enumerate(spec.graders):
        if grader.name in seen:
            yield Problem(
                f"spec.graders[{i}].name",
                f"{grader.name!r} is also the name of spec.graders[{seen[grader.name]}]; give each its own",
            )
        seen.setdefault(grader.name, i)


def grader_scale_rises(spec: RFTJobSpec) -> Iterator[Problem]:
    """A scale maps min to 0 and max to 1."""
    for i, grader in enumerate(spec.graders):
        if grader.scale is not None and not grader.scale.min < grader.scale.max:
            yield Problem(
                f"spec.graders[{i}].scale",
                f"min {grader.scale.min:g} must be below max {grader.scale.max:g}",
            )


def marker_goes_with_marker_extraction(spec: RFTJobSpec) -> Iterator[Problem]:
    """``numeric.marker`` and ``extract: marker`` belong together."""
    for i, grader in enumerate(spec.graders):
        numeric = grader.numeric
        if numeric is not None and (numeric.extract == "marker") != (numeric.marker is not None):
            yield Problem(
                f"spec.graders[{i}].numeric",
                "marker and extract: marker belong together; set both or neither",
            )


def completion_fits_context(spec: RFTJobSpec) -> Iterator[Problem]:
    """A prompt needs room beside the completion."""
    context = spec.training.max_context_length
    if context is not None and spec.sampling.max_tokens >= context:
        yield Problem(
            "spec.sampling.maxTokens",
            f"{spec.sampling.max_tokens} leaves no room for a prompt in"
            f" spec.training.maxContextLength {context}; it must be smaller",
        )


def context_fits_batch(spec: RFTJobSpec) -> Iterator[Problem]:
    """A batch holds at least one longest sequence."""
    context = spec.training.max_context_length
    if context is not None and context > spec.training.batch_size_tokens:
        yield Problem(
            "spec.training.maxContextLength",
            f"{context} is above spec.training.batchSizeTokens {spec.training.batch_size_tokens};"
            " it must be at most that",
        )


def completion_fits_default_context(spec: RFTJobSpec) -> Iterator[Problem]:
    """Where the context is derived, the batch is what bounds it."""
    training = spec.training
    if training.max_context_length is None and spec.sampling.max_tokens >= training.batch_size_tokens:
        yield Problem(
            "spec.sampling.maxTokens",
            f"{spec.sampling.max_tokens} must be below spec.training.batchSizeTokens"
            f" {training.batch_size_tokens}, which bounds prompt plus completion",
        )


def extra_volume_has_one_source(spec: RFTJobSpec) -> Iterator[Problem]:
    """An extra volume comes from exactly one place."""
    volumes = (spec.template.volumes if spec.template is not None else None) or []
    for i, volume in enumerate(volumes):
        yield from _exactly_one(
            f"spec.template.volumes[{i}]",
            {"persistentVolumeClaim": volume.persistent_volume_claim, "configMap": volume.config_map},
        )


def suspending_needs_storage(spec: RFTJobSpec) -> Iterator[Problem]:
    """An emptyDir dies with the pod, so there would be nothing to resume from."""
    if spec.suspend and spec.storage.ephemeral is not None:
        yield Problem(
            "spec.suspend",
            "true would lose the run: with storage.ephemeral its checkpoints die with the pod;"
            " use a claim, or cancel",
        )


RULES: tuple[Rule, ...] = (
    dataset_has_one_source,
    storage_has_one_kind,
    grader_has_one_kind,
    python_grader_has_one_source,
    grader_names_are_unique,
    grader_scale_rises,
    marker_goes_with_marker_extraction,
    completion_fits_context,
    context_fits_batch,
    completion_fits_default_context,
    extra_volume_has_one_source,
    suspending_needs_storage,
)


def problems(spec: RFTJobSpec) -> list[Problem]:
    """Return what every rule has to say, in the order of the rules."""
    return [problem for rule in RULES for problem in rule(spec)]
