"""Every command accepts manifests that name files of the user: code by ``python.file``, rows by any path."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from rft_cli.commands import submit as submitting
from rft_cli.errors import UserError
from rft_cli.local import own_files
from rft_cli.local.inputs import Overrides, resolve
from rft_cli.local.manifest import load, read
from rft_cli.main import app

REWARD = (
    "from helper import score\nimport json\n\ndef grade(completion, row):\n    return score(completion)\n"
)
ROWS = "".join(json.dumps({"prompt": f"What is {i} + 1?", "answer": i + 1}) + "\n" for i in range(70))


def job(**spec: object) -> dict[str, Any]:
    """Return a manifest as a user writes it on a laptop: without storage, and with names of files."""
    return {
        "apiVersion": "rft.dev/v1alpha1",
        "kind": "RFTJob",
        "metadata": {"name": "mine"},
        "spec": {
            "model": {"name": "Qwen/Qwen2.5-0.5B-Instruct"},
            "dataset": {"uri": "rows.jsonl"},
            "graders": [{"name": "reward", "python": {"file": "reward.py"}}],
            **spec,
        },
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the user's files, which is also the user's home. There is no cluster."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    (tmp_path / "reward.py").write_text(REWARD)
    (tmp_path / "helper.py").write_text("def score(text):\n    return 1.0\n")
    (tmp_path / "rows.jsonl").write_text(ROWS)
    return tmp_path


def written(folder: Path, body: dict[str, Any]) -> Path:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(body))
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_local_run_finds_code_helpers_and_rows_beside_the_manifest(folder: Path) -> None:
    manifest = load(written(folder, job()))
    inputs = resolve(manifest, Overrides(), folder / "run")
    assert inputs.dataset.location == str(folder / "rows.jsonl")
    assert inputs.graders["reward"].content == REWARD.encode()
    assert [Path(each.location).name for each in inputs.beside["reward"]] == ["helper.py"]


@pytest.mark.parametrize("uri", ["rows.jsonl", "./rows.jsonl", "~/rows.jsonl", "file://rows.jsonl"])
def test_rows_are_found_by_any_path(folder: Path, uri: str) -> None:
    inputs = resolve(load(written(folder, job(dataset={"uri": uri}))), Overrides(), folder / "run")
    assert inputs.dataset.location == str(folder / "rows.jsonl")


def test_code_and_model_are_found_from_home(folder: Path) -> None:
    (folder / "model").mkdir()
    graders = [{"name": "reward", "python": {"file": "~/reward.py"}}]
    manifest = load(written(folder, job(graders=graders, model={"name": "~/model"})))
    assert manifest.job.spec.model.name == str(folder / "model")
    assert resolve(manifest, Overrides(), folder / "run").graders["reward"].content == REWARD.encode()


def test_a_models_folder_is_meant_by_its_path_and_a_hub_id_by_its_slash(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "model").mkdir()
    (folder / "owner" / "model").mkdir(parents=True)
    for name in ("model", "./model", "~/model"):
        assert own_files.model_name(name) == str(folder / "model")
    for name in ("owner/model", "absent", "./absent"):
        assert own_files.model_name(name) == name


def test_validation_for_this_machine_needs_no_storage_and_gives_no_advice_on_it(folder: Path) -> None:
    path = written(folder, job())
    result = run("validate", "--local", str(path))
    assert result.exit_code == 0, result.output
    assert "storage" not in result.output
    assert "spec.storage: is required" in run("validate", str(path)).output


def test_suggested_experiments_name_the_files_as_the_manifest_does(folder: Path) -> None:
    result = run("suggest", "--goal", "better-quality", str(written(folder, job())))
    assert result.exit_code == 0, result.output
    first = next(yaml.safe_load_all(result.stdout))
    assert first["spec"]["graders"] == job()["spec"]["graders"]
    assert "storage" not in first["spec"]


class Cluster:
    """A fake cluster, which keeps the objects that are applied."""

    namespace = "default"

    def __init__(self) -> None:
        self.applied: list[dict[str, Any]] = []

    def applying(self, **_: object) -> "Cluster":
        return self

    def __enter__(self) -> Any:
        return self._apply

    def _apply(self, body: dict[str, Any]) -> str:
        self.applied.append(body)
        return "created"

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    monkeypatch.setattr(submitting, "connect", lambda *_: found)
    return found


STORED: dict[str, object] = {"ephemeral": {}}


def test_submitting_makes_the_config_maps_that_local_files_need(folder: Path, cluster: Cluster) -> None:
    evaluation = {"dataset": {"uri": "~/rows.jsonl"}}
    result = run("submit", str(written(folder, job(storage=STORED, evaluation=evaluation))))
    assert result.exit_code == 0, result.output
    *maps, sent, code = cluster.applied
    assert sent["spec"]["dataset"] == {
        "configMap": {"name": maps[0]["metadata"]["name"], "key": "rows.jsonl"}
    }
    assert sent["spec"]["evaluation"]["dataset"]["configMap"]["name"] == maps[1]["metadata"]["name"]
    assert maps[0]["data"] == {"rows.jsonl": ROWS}
    assert sent["spec"]["graders"][0]["python"]["configMap"]["name"] == code["metadata"]["name"]
    assert set(code["data"]) == {"reward.py", "helper.py"}


def test_changed_code_gets_another_config_map(folder: Path) -> None:
    path = written(folder, job())
    before = read(path)[1].body["metadata"]["name"]
    (folder / "helper.py").write_text("def score(text):\n    return 0.5\n")
    assert read(path)[1].body["metadata"]["name"] != before


def test_files_outside_of_the_manifests_folder_are_sent_only_if_allowed(
    folder: Path, cluster: Cluster
) -> None:
    (folder / "project").mkdir()
    path = written(folder / "project", job(storage=STORED, dataset={"uri": "~/rows.jsonl"}))
    (folder / "project" / "reward.py").write_text(REWARD)
    refused = run("submit", str(path))
    assert refused.exit_code == 1
    assert "spec.dataset.uri:" in refused.stderr
    assert f"--send-files-from {folder}" in refused.stderr
    assert cluster.applied == []
    assert run("submit", str(path), "--send-files-from", str(folder)).exit_code == 0


def test_code_outside_of_the_folder_is_not_sent_either(folder: Path, cluster: Cluster) -> None:
    (folder / "project").mkdir()
    path = written(folder / "project", job(storage=STORED))
    body = yaml.safe_load(path.read_text())
    body["spec"]["graders"][0]["python"]["file"] = "../reward.py"
    assert "is not sent to the cluster" in run("submit", str(written(folder / "project", body))).stderr


def test_a_link_to_a_module_outside_of_the_folder_is_not_sent(folder: Path, cluster: Cluster) -> None:
    """In a stranger's folder, a module that the code imports may be a link to a private key."""
    project = folder / "project"
    project.mkdir()
    (project / "reward.py").write_text(REWARD)
    (project / "helper.py").symlink_to(folder / "helper.py")
    (project / "rows.jsonl").write_text(ROWS)
    refused = run("submit", str(written(project, job(storage=STORED))))
    assert refused.exit_code == 1
    assert "is not sent to the cluster" in refused.stderr
    assert cluster.applied == []


def test_a_path_on_a_volume_of_the_job_stays_as_it_is(folder: Path, cluster: Cluster) -> None:
    volumes = [{"name": "rows", "mountPath": str(folder), "persistentVolumeClaim": "claim"}]
    spec = job(storage=STORED, dataset={"uri": f"{folder}/rows.jsonl"}, template={"volumes": volumes})
    assert run("submit", str(written(folder, spec))).exit_code == 0
    assert cluster.applied[0]["spec"]["dataset"] == {"uri": f"{folder}/rows.jsonl"}


def test_rows_that_are_no_text_are_sent_as_bytes(folder: Path, cluster: Cluster) -> None:
    (folder / "rows.jsonl.gz").write_bytes(b"\x1f\x8b\xff\x00")
    made = own_files.config_map(job(), "rows", {"rows.jsonl.gz": b"\x1f\x8b\xff\x00"}, "spec.dataset.uri")
    assert made["binaryData"] == {"rows.jsonl.gz": "H4v/AA=="}


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ({"file": "absent.py"}, "absent.py is not a file; name one that exists"),
        ({"file": "reward.py", "inline": "x"}, "needs exactly one of file, inline, configMap"),
        ({"file": 5}, "5 is not a path; write one such as reward.py"),
        (
            {"file": "my reward.py"},
            "use only letters, digits, -, _ and . in the file's name, such as my-reward.py",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_field(
    folder: Path, python: dict[str, object], said: str
) -> None:
    (folder / "my reward.py").write_text(REWARD)
    with pytest.raises(UserError) as error:
        read(written(folder, job(graders=[{"name": "reward", "python": python}])))
    assert "spec.graders[0].python" in str(error.value)
    assert said in str(error.value)


def test_rows_too_large_for_a_config_map_are_refused(
    folder: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_files, "CONFIG_MAP_BYTES", 1000)
    result = run("submit", str(written(folder, job(storage=STORED))))
    assert result.exit_code == 1
    assert "a ConfigMap may have at most 1,000; put it on a volume" in result.stderr
