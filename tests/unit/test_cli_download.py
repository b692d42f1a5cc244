"""rft download, samples and export of a job in the cluster. Commands in pods run on this machine."""

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from typer.testing import CliRunner, Result

from rft_cli.cluster import reader, reading_pod
from rft_cli.cluster.process import failure, handshake_status
from rft_cli.errors import UserError
from rft_cli.local.brought import PARTS
from rft_cli.local.received import PARTIAL, receive
from rft_cli.main import app
from rft_run.folder import RunFolder
from rft_run.listing import FileEntry, UnsafeListing, read_listing, read_names
from rft_run.state import RunState
from tests.unit.checkpoint_support import write_adapter, write_checkpoint
from tests.unit.pod_support import PodServer, child_job, finished_job, pods_served


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Return a folder that replaces the run's folder on the job's volume. Two of its adapters are equal."""
    path = tmp_path / "volume"
    folder = RunFolder(path)
    write_adapter(folder.adapter, "final" * 120_000)
    for step, text in ((10, "older"), (20, "final" * 120_000)):
        write_checkpoint(folder, step, RunState(step=step, best_reward=0.5, best_step=10), text)
    folder.rollouts.mkdir()
    for step in (19, 20):
        folder.rollouts_of(step).write_bytes(rollouts(step))
    folder.metrics.write_text('{"step": 19, "reward": 0.2}\n{"step": 20, "reward": 0.3}\n')
    (path / "adapters").mkdir()
    (path / "adapters" / "v1").write_text("only the sampler needs it")
    (path / ".rft.lock").write_text("")
    (path / "logs").mkdir()
    (path / "logs" / "passwd").symlink_to("/etc/passwd")
    (path / "rollouts" / "linked").symlink_to("/etc", target_is_directory=True)
    os.mkfifo(path / "logs" / "fifo")
    return path


def rollouts(step: int) -> bytes:
    record = {"step": step, "line": 1, "completion": f"of {step}", "reward": 1.0, "graders": {}}
    return zstandard.ZstdCompressor().compress((json.dumps(record) + "\n").encode())


@pytest.fixture
def server(tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PodServer]:
    monkeypatch.chdir(tmp_path)
    with pods_served(tmp_path, volume, monkeypatch) as server:
        yield server


def rft(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of the run. The key is the file's path in ``folder``.

    Links, hidden files and the files that ``rft download`` adds are left out.
    """
    added = {"run.json", "status.yaml", "report.html"}
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.name not in added and path.name[0] != "."
    }


def test_all_files_of_a_run_arrive_and_the_pod_is_deleted(
    server: PodServer, volume: Path, tmp_path: Path
) -> None:
    result = rft("download", "sums")
    assert result.exit_code == 0, result.output
    expected = digests(volume)
    del expected["adapters/v1"]
    assert digests(tmp_path / "runs" / "sums") == expected
    assert not (tmp_path / "runs" / "sums" / PARTIAL).exists()
    assert len(server.made) == 1
    assert server.pods == {}
    # Each content is sent once, although two adapters are equal.
    assert server.sent < sum((volume / path).stat().st_size for path in expected)


def test_a_downloaded_folder_is_read_by_all_commands(server: PodServer, tmp_path: Path) -> None:
    assert rft("download", "sums").exit_code == 0
    assert "of 20" in rft("samples", "runs/sums").stdout
    assert "0.300" in rft("curve", "runs/sums").stdout
    assert "sums" in (tmp_path / "runs" / "sums" / "report.html").read_text()
    assert rft("export", "runs/sums", "--output", "out").exit_code == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`org/model`" in card
    assert "| reward | 0.100 | 0.400 |" in card


@pytest.mark.parametrize("cut_after", [50_000, 400_000])
def test_a_download_that_was_cut_off_continues_and_sends_no_byte_again(
    server: PodServer, volume: Path, tmp_path: Path, cut_after: int
) -> None:
    server.cut_after = cut_after
    first = rft("download", "sums", "--output", "out", "--only", "adapter")
    assert first.exit_code == 1
    assert "the connection to the pod was lost" in first.stderr
    assert server.pods == {}
    here = sum(path.stat().st_size for path in (tmp_path / "out" / PARTIAL).iterdir())
    assert 0 < here < server.sent
    server.cut_after, server.sent = None, 0
    second = rft("download", "sums", "--output", "out", "--only", "adapter")
    assert second.exit_code == 0, second.output
    size = sum(path.stat().st_size for path in (volume / "adapter").iterdir())
    # In addition to the missing bytes, the pod sends a short line for each piece and each file.
    assert size - here <= server.sent < size - here + 50
    assert digests(tmp_path / "out") == {
        path: digest for path, digest in digests(volume).items() if path.startswith("adapter/")
    }


def test_what_is_complete_is_not_sent_again(server: PodServer) -> None:
    assert rft("download", "sums").exit_code == 0
    server.sent = 0
    assert "0.0 MiB of them sent now" in rft("download", "sums").stdout
    assert server.sent == 0


# A signal may come between the opening of a file and its `with` block. Then only the interpreter closes the
# file.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_download_deletes_its_pod_and_can_be_continued(
    server: PodServer, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    server.cut_after = 50_000
    server.on_cut = lambda: os.kill(os.getpid(), number)
    result = rft("download", "sums")
    assert result.exit_code == 130
    assert "to continue, repeat the command" in result.stderr
    assert server.pods == {}
    assert signal.getsignal(number) is before
    server.cut_after = None
    assert rft("download", "sums").exit_code == 0


def test_a_file_that_was_changed_here_is_sent_again_and_a_link_is_replaced(
    server: PodServer, volume: Path, tmp_path: Path
) -> None:
    assert rft("download", "sums").exit_code == 0
    folder = tmp_path / "runs" / "sums"
    (folder / "metrics.jsonl").write_text("changed")
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (folder / "adapter" / "adapter_config.json").unlink()
    (folder / "adapter" / "adapter_config.json").symlink_to(outside)
    assert rft("download", "sums").exit_code == 0
    assert digests(folder).items() <= digests(volume).items()
    assert outside.read_text() == "mine"


def test_no_file_is_written_through_a_linked_folder(server: PodServer, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert rft("download", "sums", "--only", "records").exit_code == 0
    (tmp_path / "runs" / "sums" / "adapter").symlink_to(elsewhere)
    result = rft("download", "sums")
    assert result.exit_code == 2
    assert "is a symbolic link" in result.stderr
    assert list(elsewhere.iterdir()) == []


def test_another_folder_is_never_mixed_with_a_download(server: PodServer, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("")
    result = rft("download", "sums", "--output", "mine")
    assert result.exit_code == 1
    assert "has files that are not from a run of this job" in result.stderr
    assert rft("download", "sums").exit_code == 0
    server.job["metadata"]["uid"] = "another"
    assert "holds another run, of sums" in rft("download", "sums").stderr
    assert len(server.made) == 1


def test_a_download_that_failed_at_the_job_can_be_repeated(server: PodServer) -> None:
    known = server.job["spec"]["model"]
    server.job["spec"]["model"] = {**known, "unknownField": 1}
    assert "unknownField" in rft("download", "sums").stderr
    server.job["spec"]["model"] = known
    result = rft("download", "sums")
    assert result.exit_code == 0, result.output


def test_a_signal_while_the_pod_is_created_deletes_it(server: PodServer) -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)  # so that the command handles the signal before it gets the answer

    server.on_created = interrupt
    assert rft("download", "sums").exit_code == 130
    assert len(server.made) == 1
    assert server.pods == {}


def test_the_first_error_is_reported_if_the_pod_cannot_be_deleted_either(server: PodServer) -> None:
    server.refused, server.deletion_refused = 403, True
    result = rft("download", "sums")
    assert result.exit_code == 1
    not_deleted, first = result.stderr.strip().splitlines()[-2:]
    assert "is not deleted, and ends by itself" in not_deleted
    assert "get and create on pods/exec" in first


def test_a_pod_that_cannot_be_deleted_after_a_download_is_an_error(server: PodServer) -> None:
    server.deletion_refused = True
    result = rft("download", "sums", "--only", "records")
    assert result.exit_code == 1
    assert "is not deleted, and ends by itself" in result.stderr


@pytest.mark.parametrize(("options", "step"), [([], 20), (["--step", 19], 19)])
def test_digests_of_other_rollouts_are_not_computed(
    server: PodServer, options: list[object], step: int
) -> None:
    assert rft("samples", "sums", *options).exit_code == 0
    listed = [arguments for action, *arguments in server.commands if action == "list"]
    assert listed == [[f"rollouts/step-{step:06d}.jsonl.zst"]]


def test_names_are_listed_without_content_and_an_alive_line_depends_on_time(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"x")
    os.mkfifo(tmp_path / "b")
    reader.list_files(str(tmp_path), ["*"], hashes=False)
    assert read_names(capfdbinary.readouterr().out.splitlines()) == ["a", "b"]
    reader.list_files(str(tmp_path), ["*"], hashes=True)
    assert capfdbinary.readouterr().out.count(b"\n") == 1
    monkeypatch.setattr(reader, "ALIVE_SECONDS", 0.0)
    reader.list_files(str(tmp_path), ["*"], hashes=True)
    assert capfdbinary.readouterr().out.startswith(b"\n{")


def test_the_pod_has_the_jobs_image_and_no_rights() -> None:
    trainer = reading_pod.trainer_pod(finished_job(), child_job(), None)
    pod = reading_pod.reading_pod(finished_job(), "runs", trainer)
    spec, [container] = pod["spec"], pod["spec"]["containers"]
    assert container["image"] == "registry/trainer:1"
    assert container["imagePullPolicy"] == "Never"
    assert container["securityContext"] == {"runAsUser": 10001}
    assert {variable["name"] for variable in container["env"]} == {"RFT_READER", "PYTHONDONTWRITEBYTECODE"}
    assert "nvidia.com/gpu" not in json.dumps(container)
    assert container["volumeMounts"] == [
        {"name": "runs", "mountPath": "/folder", "subPath": "team/sums-12345678", "readOnly": True}
    ]
    assert spec["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in spec
    assert spec["activeDeadlineSeconds"] == 3600
    assert spec["securityContext"] == {"fsGroup": 10000}
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    [reference] = pod["metadata"]["ownerReferences"]
    assert reference["uid"] == finished_job()["metadata"]["uid"]
    assert not {"controller", "blockOwnerDeletion"} & set(reference)


def test_after_the_jobs_ttl_the_pod_is_restricted_and_needs_an_image() -> None:
    with pytest.raises(UserError, match="--image"):
        reading_pod.trainer_pod(finished_job(), None, None)
    of_template = finished_job(template={"image": "registry/own:2"})
    assert reading_pod.trainer_pod(of_template, None, None)["containers"][0]["image"] == "registry/own:2"
    [container] = reading_pod.trainer_pod(of_template, None, "given")["containers"]
    assert container["image"] == "given"
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False


@pytest.mark.parametrize(
    ("storage", "claim"),
    [
        ({"persistentVolumeClaim": {"claimName": "runs"}}, "runs"),
        ({"claimTemplate": {"size": "1Gi"}}, "sums-12345678"),
        ({"ephemeral": {}}, None),
    ],
)
def test_the_claim_is_that_of_the_jobs_storage(storage: dict[str, Any], claim: str | None) -> None:
    job = finished_job()
    job["spec"]["storage"] = storage
    assert reading_pod.claim_of(job) == claim


def test_a_job_whose_folder_is_on_no_volume_says_how_to_copy_it(server: PodServer) -> None:
    server.job["spec"]["storage"] = {"ephemeral": {}}
    result = rft("download", "sums")
    assert result.exit_code == 1
    assert "kubectl cp -n team -c trainer POD:/runs/team/sums-12345678 runs/sums" in result.stderr
    server.job["status"]["output"] = {}
    assert "has not written a run's folder yet" in rft("samples", "sums").stderr
    assert server.made == []


def test_a_pod_that_cannot_start_says_why_and_is_deleted(server: PodServer) -> None:
    waiting = {"reason": "ErrImageNeverPull", "message": "image is not there"}
    server.pod_status = {
        "phase": "Pending",
        "containerStatuses": [
            {"name": "reader", "image": "", "imageID": "", "ready": False, "restartCount": 0,
             "state": {"waiting": waiting}},
        ],
    }  # fmt: skip
    result = rft("download", "sums")
    assert result.exit_code == 1
    assert "cannot start: ErrImageNeverPull: image is not there" in result.stderr
    assert server.pods == {}


def test_a_pod_that_waits_too_long_says_what_its_conditions_say(
    server: PodServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rft_cli.cluster.volume.START_SECONDS", 0.0)
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}
    server.pod_status = {"phase": "Pending", "conditions": [condition]}
    assert "within 0 s: Unschedulable: no node" in rft("download", "sums").stderr
    assert server.pods == {}


def test_pods_of_killed_commands_are_removed_and_others_stay(server: PodServer) -> None:
    labels = {"app.kubernetes.io/name": "rft-reader", "app.kubernetes.io/instance": "sums"}
    for name, phase, job in (
        ("ended", "Failed", "sums"),
        ("works", "Running", "sums"),
        ("other", "Failed", "x"),
    ):
        metadata = {"name": name, "labels": {**labels, "app.kubernetes.io/instance": job}}
        server.pods[name] = {"metadata": metadata, "status": {"phase": phase}}
    assert rft("download", "sums", "--only", "adapter").exit_code == 0
    assert set(server.pods) == {"works", "other"}


@pytest.mark.parametrize(
    ("status", "advice"), [(403, "ask for the rights get and create on pods/exec"), (401, "log in again")]
)
def test_a_command_that_the_server_refuses_says_what_to_do(
    server: PodServer, status: int, advice: str
) -> None:
    server.refused = status
    result = rft("download", "sums")
    assert result.exit_code == 1
    assert advice in result.stderr
    assert server.pods == {}


def test_samples_of_a_job_are_those_of_its_newest_step_or_the_one_that_is_named(
    server: PodServer, tmp_path: Path
) -> None:
    result = rft("samples", "sums")
    assert result.exit_code == 0, result.output
    assert "of 20" in result.stdout
    assert "of 19" in rft("samples", "sums", "--step", 19).stdout
    assert (
        "--step 5: sums has rollouts only of the steps 19 to 20" in rft("samples", "sums", "--step", 5).stderr
    )
    assert server.pods == {}
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "content"), [([], "final"), (["--step", 10], "older"), (["--best"], "older")]
)
def test_the_adapter_of_a_job_is_exported_without_what_is_not_needed(
    server: PodServer, tmp_path: Path, options: list[object], content: str
) -> None:
    result = rft("export", "sums", "--output", "out", *options)
    assert result.exit_code == 0, result.output
    assert content.encode() in (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    assert "`org/model`" in (tmp_path / "out" / "README.md").read_text()


def checkpoint_files(step: int) -> list[str]:
    return [f"checkpoints/step-{step:06d}/adapter/*", f"checkpoints/step-{step:06d}/state.json"]


def read(server: PodServer) -> list[list[str]]:
    """Return the file patterns of each ``list`` command in a pod.

    The first command is left out. It lists only the file with the steps' records, ``metrics.jsonl``.
    """
    listed = [arguments for action, *arguments in server.commands if action == "list"]
    assert listed[:1] in ([], [["metrics.jsonl"]])
    return listed[1:]


@pytest.mark.parametrize(
    ("options", "has_final", "expected"),
    [
        ([], True, [["adapter/*"]]),
        ([], False, [checkpoint_files(20)]),
        (["--step", 10], True, [checkpoint_files(10)]),
        (["--best"], True, [checkpoint_files(20), checkpoint_files(10)]),
    ],
)
def test_an_export_reads_no_checkpoint_that_it_does_not_need(
    server: PodServer, volume: Path, options: list[object], has_final: bool, expected: list[list[str]]
) -> None:
    write_checkpoint(RunFolder(volume), 5)
    if not has_final:
        shutil.rmtree(volume / "adapter")
    result = rft("export", "sums", "--output", "out", *options)
    assert result.exit_code == 0, result.output
    assert read(server) == expected


def test_an_export_reads_an_older_checkpoint_if_the_newest_cannot_be_used(
    server: PodServer, volume: Path, tmp_path: Path
) -> None:
    for adapter in (volume / "adapter", volume / "checkpoints" / "step-000020" / "adapter"):
        weights = adapter / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
    result = rft("export", "sums", "--output", "out")
    assert result.exit_code == 0, result.output
    assert b"older" in (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    assert result.stderr.count("left out: ") == 2


@pytest.mark.parametrize(
    ("options", "removed", "message"),
    [
        (["--step", 15], [], "in the folder of sums; there are checkpoints of steps 10, 20"),
        (["--step", 10], ["checkpoints"], "step 10: has no checkpoint in the folder of sums; it has no"),
        ([], ["checkpoints", "adapter"], "sums: has neither an adapter nor a checkpoint"),
        (["--step", 10, "--best"], [], "--step and --best exclude each other"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_said_before_a_file_is_read(
    server: PodServer, volume: Path, options: list[object], removed: list[str], message: str
) -> None:
    for name in removed:
        shutil.rmtree(volume / name)
    result = rft("export", "sums", "--output", "out", *options)
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())
    assert [action for action, *_ in server.commands] in ([], ["names"])
    assert server.pods == {}


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../other/adapter", "adapter/../../x", "a//b", "", ".", "..", "a/.ssh/x",
     ".rft-download/x", "a\\b", "a\nb", "a\0b", "x" * 2000],
)  # fmt: skip
def test_no_path_of_a_list_leads_out_of_the_folder(path: str) -> None:
    line = json.dumps({"path": path, "size": 1, "sha256": "0" * 64}).encode()
    with pytest.raises(UnsafeListing, match="the path"):
        read_listing([line])
    with pytest.raises(UnsafeListing, match="the path"):
        read_names([json.dumps(path).encode()])


@pytest.mark.parametrize(
    "line",
    [b"no json", b"[]", b'{"path": "a"}', b'{"path": "a", "size": -1, "sha256": "%s"}' % (b"0" * 64),
     b'{"path": "a", "size": true, "sha256": "%s"}' % (b"0" * 64),
     b'{"path": "a", "size": 1, "sha256": "x"}'],
)  # fmt: skip
def test_a_line_that_is_no_file_is_refused(line: bytes) -> None:
    with pytest.raises(UnsafeListing):
        read_listing([line])


def test_a_list_with_a_path_twice_or_too_many_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps({"path": f"f{i}", "size": 1, "sha256": "0" * 64}).encode() for i in range(3)]
    assert [entry.path for entry in read_listing([b"\n", *lines])] == ["f0", "f1", "f2"]
    with pytest.raises(UnsafeListing, match="twice"):
        read_listing([lines[0], lines[0]])
    monkeypatch.setattr("rft_run.listing.MOST_FILES", 2)
    with pytest.raises(UnsafeListing, match="more than 2 files"):
        read_listing(lines)


class Changing:
    """A source with one file, ``metrics.jsonl``, which changes during the download.

    The first ``rounds`` reads return content that does not match the listed digest. Later reads match it.
    """

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def files(self, _patterns: object) -> list[FileEntry]:
        return [FileEntry("metrics.jsonl", 3, hashlib.sha256(b"new").hexdigest())]

    def content(self, wanted: Any) -> Generator[tuple[int, bytes], None, None]:
        self.rounds -= 1
        yield 0, (b"old" if self.rounds >= 0 else b"new")[wanted[0][1] :]


def test_a_file_that_changes_while_it_is_sent_is_asked_for_again(tmp_path: Path) -> None:
    assert receive(Changing(2), PARTS["records"], tmp_path).files == 1
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"new"
    with pytest.raises(UserError, match=r"metrics\.jsonl: changed during each attempt"):
        receive(Changing(9), PARTS["records"], tmp_path / "other")
    assert not (tmp_path / "other" / "metrics.jsonl").exists()


def test_the_verdict_of_a_command_is_read() -> None:
    assert failure(b'{"status": "Success"}', b"") is None
    assert failure(b'{"status": "Failure", "message": "exit code 1"}', b"a\nno space\n") == (
        "exit code 1; no space"
    )
    assert failure(b"\xff", b"") == "the API server did not say how the command ended"
    assert handshake_status("Handshake status 403 Forbidden -+-+- {}") == 403
    assert handshake_status("timed out") is None
