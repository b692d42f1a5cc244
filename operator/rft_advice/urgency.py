"""Which advice on a job matters most, and which of it the user has acknowledged by an annotation."""

import difflib
import re
from collections.abc import Mapping

from rft_advice.rule import Advice
from rft_advice.rules import RULES, advise
from rft_api.job import RFTJob

ANNOTATION = "rft.dev/acknowledged-advice"
"""Annotation of an RFTJob with ids of advice, separated by commas, that are not printed any more."""

MATTERS_MOST = (
    "cpu-for-large-model",
    "thought-cut",
    "max-tokens-fills-context",
    "top-p-zero",
    "top-k-one",
    "batch-size-below-one-group",
    "learning-rate-high",
    "temperature-near-greedy",
    "storage-ephemeral",
    "evaluation-off",
    "stop-never-applies",
    "gpus-against-accelerator",
    "tracking-without-backend",
    "temperature-high",
    "temperature-unfiltered",
    "epochs-many",
    "num-rollouts-few",
    "max-tokens-low",
)
"""Ids of the advice that matters most, in order: first what wastes the whole run, then what is lost after it.
All other advice comes behind, in the order of the rules.
"""


def advise_job(job: RFTJob) -> list[Advice]:
    """Return the advice on a job that is not acknowledged. What matters most comes first."""
    order = list(dict.fromkeys((*MATTERS_MOST, *(rule.id for rule in RULES))))
    known = acknowledged(job.metadata.annotations)
    found = [advice for advice in advise(job.spec) if advice.rule not in known]
    return sorted(found, key=lambda advice: order.index(advice.rule))


def acknowledged(annotations: Mapping[str, str]) -> frozenset[str]:
    """Return the ids of advice that the annotation names."""
    return frozenset(part for part in re.split(r"[,\s]+", annotations.get(ANNOTATION, "")) if part)


def unknown(annotations: Mapping[str, str]) -> list[str]:
    """Return a message for each id in the annotation that no advice has."""
    ids = [rule.id for rule in RULES]
    messages = []
    for name in sorted(acknowledged(annotations) - set(ids)):
        close = difflib.get_close_matches(name, ids, 1)
        meant = f"; did you mean {close[0]}?" if close else "; the ids stand in brackets behind the advice"
        messages.append(f"metadata.annotations.{ANNOTATION}: {name!r} is the id of no advice{meant}")
    return messages
