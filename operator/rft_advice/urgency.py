"""Sorts the advice on an RFTJob by importance, and leaves out advice that the user has acknowledged."""

import difflib
import re
from collections.abc import Mapping

from rft_advice.rule import Advice
from rft_advice.rules import RULES, advise
from rft_api.job import RFTJob

ANNOTATION = "rft.dev/acknowledged-advice"
"""Annotation with which a user acknowledges advice, so that this advice is not printed again. Its value is a
list of ids of advice rules, separated by commas.
"""

MATTERS_MOST = (
    "password-in-address",
    "cpu-for-large-model",
    "thought-cut",
    "max-tokens-fills-context",
    "turns-fill-context",
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
"""Ids of the most important advice rules, the most important first. Advice of other rules is shown after
theirs, in the order of ``RULES``.

First come a visible password and mistakes that waste the whole run, then settings that lose results of the
run.
"""


def advise_job(job: RFTJob) -> list[Advice]:
    """Return the advice on the spec of an RFTJob, without advice that the user has acknowledged in an
    annotation. The most important advice comes first.
    """
    order = list(dict.fromkeys((*MATTERS_MOST, *(rule.id for rule in RULES))))
    known = acknowledged(job.metadata.annotations)
    found = [advice for advice in advise(job.spec) if advice.rule not in known]
    return sorted(found, key=lambda advice: order.index(advice.rule))


def acknowledged(annotations: Mapping[str, str]) -> frozenset[str]:
    """Return the ids of the advice rules that the user has acknowledged. ``annotations`` are the annotations
    of the RFTJob.
    """
    return frozenset(part for part in re.split(r"[,\s]+", annotations.get(ANNOTATION, "")) if part)


def unknown(annotations: Mapping[str, str]) -> list[str]:
    """Return an error message for each acknowledged id that is not the id of an advice rule. ``annotations``
    are the annotations of the RFTJob.
    """
    ids = [rule.id for rule in RULES]
    messages = []
    for name in sorted(acknowledged(annotations) - set(ids)):
        close = difflib.get_close_matches(name, ids, 1)
        meant = (
            f"; did you mean {close[0]}?"
            if close
            else "; rft validate prints each id in brackets after the advice"
        )
        messages.append(f"metadata.annotations.{ANNOTATION}: {name!r} is not the id of any advice{meant}")
    return messages
