"""The commands rft suspend, resume and cancel, with a fake API server."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rft_cli.commands.lifecycle import Action, refusal
from rft_cli.main import app
from tests.api_server import Server, job, served


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with served(tmp_path, monkeypatch) as server:
        yield server


def rft(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def with_spec(**spec: Any) -> dict[str, Any]:
    found = job()
    found["spec"] |= spec
    return found


@pytest.mark.parametrize(
    ("action", "before", "patch"),
    [
        ("suspend", {}, {"suspend": True}),
        ("resume", {"suspend": True}, {"suspend": False}),
        ("cancel", {}, {"cancel": True}),
        ("cancel", {"suspend": True}, {"cancel": True}),
    ],
)
def test_one_field_of_the_spec_is_set_and_nothing_else(
    server: Server, action: str, before: dict[str, Any], patch: dict[str, Any]
) -> None:
    server.jobs = [with_spec(**before)]
    result = rft(action, "arithmetic")
    assert result.exit_code == 0
    assert server.patches == [("application/merge-patch+json", {"spec": patch})]
    field, value = next(iter(patch.items()))
    assert result.stdout == f"arithmetic: spec.{field} is {str(value).lower()}\n"


@pytest.mark.parametrize(
    ("action", "spec"), [("suspend", {"suspend": True}), ("resume", {}), ("cancel", {"cancel": True})]
)
def test_what_is_so_already_is_said_and_not_sent_again(
    server: Server, action: str, spec: dict[str, Any]
) -> None:
    server.jobs = [with_spec(**spec)]
    result = rft(action, "arithmetic")
    assert (result.exit_code, server.patches) == (0, [])
    assert "already; its phase is Running" in result.stdout


@pytest.mark.parametrize("action", ["suspend", "resume", "cancel"])
def test_a_job_that_has_ended_is_left_as_it_is(server: Server, action: Action) -> None:
    ended = job(phase="Succeeded")
    ended["status"]["completionTime"] = "2026-01-01T00:00:00Z"
    server.jobs = [ended]
    result = rft(action, "arithmetic")
    assert (result.exit_code, server.patches) == (1, [])
    assert "its phase is Succeeded" in result.stderr


def test_a_job_that_failed_before_its_start_can_be_suspended_to_be_corrected() -> None:
    assert refusal("suspend", job(phase="Failed")) is None


@pytest.mark.parametrize("action", ["suspend", "resume"])
def test_a_job_that_is_being_cancelled_is_not_brought_back(action: Action) -> None:
    assert "permanent" in (refusal(action, with_spec(cancel=True)) or "")


def test_a_job_whose_checkpoints_die_with_the_pod_is_not_suspended(server: Server) -> None:
    server.jobs = [with_spec(storage={"ephemeral": {}})]
    result = rft("suspend", "arithmetic")
    assert (result.exit_code, server.patches) == (1, [])
    assert "spec.storage.ephemeral" in result.stderr
    assert rft("cancel", "arithmetic").exit_code == 0


def test_a_job_that_does_not_exist_and_missing_rights_are_one_line(server: Server) -> None:
    assert "does not exist in namespace 'team'" in rft("suspend", "other").stderr
    server.refusal = "no"
    result = rft("suspend", "arithmetic")
    assert result.exit_code == 1
    assert "ask for the rights patch on rftjobs.rft.dev" in result.stderr
    server.refusal_status = 401
    assert "does not accept the credentials of" in rft("suspend", "arithmetic").stderr


@pytest.mark.parametrize("name", ["", ".", "..", "a/b"])
def test_a_name_that_would_be_another_path_is_refused(server: Server, name: str) -> None:
    result = rft("suspend", name)
    assert (result.exit_code, server.requests) == (2, [])
    assert re.search("cannot be the name of a job|is a folder, and no job", result.stderr)


@pytest.mark.parametrize(
    ("action", "phases", "code"),
    [
        ("suspend", ("Running", "Pending", "Suspended"), 0),
        ("suspend", ("Running", "Succeeded"), 1),
        ("resume", ("Suspended", "Starting", "Running"), 0),
        ("cancel", ("Running", "Cancelled"), 0),
        ("cancel", ("Succeeded",), 1),
    ],
)
def test_waiting_ends_with_the_phase_that_was_asked_for_or_with_the_job(
    server: Server, action: str, phases: tuple[str, ...], code: int
) -> None:
    start = phases[0] if phases[0] not in ("Succeeded",) else "Running"
    server.jobs = [job(phase=start)]
    server.jobs[0]["spec"]["suspend"] = action == "resume"
    server.watches = [[{"type": "MODIFIED", "object": job(phase=phase)} for phase in phases]]
    result = rft(action, "arithmetic", "--wait")
    assert result.exit_code == code
    assert result.stdout.splitlines()[-1].startswith(phases[-1])
