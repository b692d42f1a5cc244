"""Scenarios in which a manifest is applied again: after the job's TTL, and after the job was deleted."""

import time
from collections.abc import Iterator

from tests.chaos.jobs import NAME_LABEL, STEPS, UID_LABEL, job
from tests.chaos.rounds import END_SECONDS, Moments, Outcome, ended, is_over, recorded
from tests.kubectl import Kubectl, Object
from tests.waiting import wait_until

DELETED = "deleted and applied again"
EXPIRED = "applied again after the TTL"
QUIET_SECONDS = 15.0
"""After a manifest was applied again, no new run may start for this number of seconds.

A faulty operator would start a new run within one second."""


def delete_and_apply(jobs: Kubectl, name: str, engine: str, when: Moments) -> Outcome:
    """Delete a job at a random moment, and apply it again. The old run's files must not change."""
    (moment,) = when.drawn(DELETED, 1)
    outcome, started = Outcome(DELETED, round(moment, 1)), time.monotonic()
    jobs.apply(job(name, engine))
    old = jobs.get("rftjob", name)["metadata"]["uid"]
    time.sleep(moment)
    found = jobs.get("rftjob", name).get("status", {})
    outcome.hit, folder = not is_over(found), found.get("output", {}).get("folder")
    jobs.run("delete", "rftjob", name, "--wait=false")
    # If the old object still existed, apply would update it. It has no finalizers, so it is gone at once.
    wait_until("the object is gone", lambda: jobs.run("get", "rftjob", name, check=False).returncode, 60)
    jobs.apply(job(name, engine))
    wait_until("the old job's objects are gone", lambda: not _children(jobs, f"{UID_LABEL}={old}"), 120)
    before = _content(jobs, folder)
    found = wait_until("the new job ends", lambda: ended(jobs, name), END_SECONDS, poll=1.0)
    outcome.seconds = round(time.monotonic() - started, 1)
    outcome.attempts = found.get("progress", {}).get("attempt", 0)
    outcome.wrong = list(_not_new(found, recorded(jobs, found), folder))
    if _content(jobs, folder) != before:
        outcome.wrong.append(f"the new run changed {folder}")
    return outcome


def _not_new(found: Object, record: list[Object], old_folder: str | None) -> Iterator[str]:
    if found.get("phase") != "Succeeded":
        yield f"ended as {found.get('phase')}: {found.get('message')}"
    elif found["output"]["folder"] == old_folder:
        yield "the new run uses the old run's folder"
    if [(row["step"], row["attempt"]) for row in record] != [(step, 1) for step in range(1, STEPS + 1)]:
        yield f"(step, attempt) of the new run's rows: {[(row['step'], row['attempt']) for row in record]}"


def let_expire_and_apply(jobs: Kubectl, name: str, engine: str, when: Moments) -> Outcome:
    """Apply a manifest again after the TTL has deleted its job's child objects. No new run may start.

    ``when`` is not used: all scenarios have the same arguments.
    """
    del when
    outcome, started = Outcome(EXPIRED, 0.0), time.monotonic()
    manifest = job(name, engine)
    manifest["spec"]["ttlSecondsAfterFinished"] = 2
    jobs.apply(manifest)
    before = wait_until("the job ends", lambda: ended(jobs, name), END_SECONDS, poll=1.0)
    of_job = f"{NAME_LABEL}={name}"
    wait_until("the job's objects are deleted after the TTL", lambda: not _children(jobs, of_job), 60)
    outcome.after = round(time.monotonic() - started, 1)
    # A new label changes the object, so that the operator's watch reports it.
    manifest["metadata"]["labels"] = {"applied": "again"}
    jobs.apply(manifest)
    time.sleep(QUIET_SECONDS)
    outcome.seconds = round(time.monotonic() - started, 1)
    outcome.attempts = before.get("progress", {}).get("attempt", 0)
    if made := _children(jobs, of_job):
        outcome.wrong.append(f"a new run was created: {made}")
    after = jobs.get("rftjob", name)["status"]
    lasting = ("phase", "progress", "reward", "completionTime")
    changed = [field for field in lasting if after.get(field) != before.get(field)]
    outcome.wrong += [f"status.{field} changed" for field in changed]
    return outcome


def _children(jobs: Kubectl, selector: str) -> list[str]:
    return [
        f"{kind}/{one['metadata']['name']}"
        for kind in ("jobs", "pods", "configmaps")
        for one in jobs.list(kind, selector)
    ]


def _content(jobs: Kubectl, folder: str | None) -> str:
    """Return the paths and checksums of all files in a run's folder; "" if ``folder`` is None."""
    if folder is None:
        return ""
    command = ["find", folder, "-type", "f", "-exec", "sha256sum", "{}", "+"]
    return jobs.run("exec", "reader", "--", *command, check=False).stdout
