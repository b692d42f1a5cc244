"""rft run: where it reads rows and graders' code, and which device it uses."""

import json
from pathlib import Path

import pytest

from rft_api.resources import Accelerator, Resources
from rft_cli.commands.run import with_overrides
from rft_cli.errors import UserError
from rft_cli.local import device
from rft_cli.local.inputs import Inputs, Overrides, resolve
from rft_cli.local.manifest import load
from rft_cli.local.snapshot import _changed_inputs
from rft_planner.accelerators import NVIDIA
from rft_planner.nodes import Kind
from rft_run.folder import RunFolder

JOB = """
apiVersion: v1
kind: ConfigMap
metadata: {name: files}
data:
  train.jsonl: '{"messages": []}'
  grader.py: 'def grade(completion, row): return 1.0'
---
apiVersion: rft.dev/v1alpha1
kind: RFTJob
metadata: {name: arithmetic}
spec:
  model: {name: Qwen/Qwen2.5-0.5B-Instruct}
  dataset: DATASET
  graders: [{name: own, python: {configMap: {name: files}}}]
  storage: {ephemeral: {}}
"""


def resolved(folder: Path, dataset: str, overrides: Overrides | None = None, job: str = JOB) -> Inputs:
    path = folder / "job.yaml"
    path.write_text(job.replace("DATASET", dataset))
    return resolve(load(path), overrides or Overrides(), folder / "out")


def test_rows_and_graders_of_a_config_map_are_taken_from_the_same_file(tmp_path: Path) -> None:
    inputs = resolved(tmp_path, "{configMap: {name: files}}")
    inputs.dataset.write()
    assert (tmp_path / "out" / "train.jsonl").read_text() == '{"messages": []}'
    assert inputs.graders["own"].location == str(tmp_path / "out" / "graders" / "own" / "grader.py")
    assert inputs.graders["own"].content == b"def grade(completion, row): return 1.0"


def test_the_other_keys_of_a_graders_config_map_lie_beside_its_code(tmp_path: Path) -> None:
    job = JOB.replace("  grader.py:", "  helper.py: 'ONE = 1'\n  grader.py:")
    inputs = resolved(tmp_path, "{configMap: {name: files}}", job=job)
    for given in inputs.named().values():
        given.write()
    folder = tmp_path / "out" / "graders" / "own"
    assert {path.name for path in folder.iterdir()} == {"grader.py", "helper.py", "train.jsonl"}
    assert (folder / "helper.py").read_text() == "ONE = 1"
    assert inputs.named()["grader own, helper.py"].digest() is not None


@pytest.mark.parametrize("key", ["../helper.py", "a/b.py", "..", "a b.py"])
def test_a_key_that_no_config_map_has_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(UserError, match="is not a valid ConfigMap key"):
        resolved(tmp_path, "{configMap: {name: files}}", job=JOB.replace("grader.py", key))


def test_a_run_of_a_release_that_read_no_helpers_resumes_and_a_changed_helper_is_refused(
    tmp_path: Path,
) -> None:
    job = JOB.replace("  grader.py:", "  helper.py: 'ONE = 1'\n  grader.py:")
    inputs = resolved(tmp_path, "{configMap: {name: files}}", job=job)
    digests = RunFolder(tmp_path).digests
    known = {field: given.digest() for field, given in inputs.named().items()}
    digests.write_text(json.dumps({field: known[field] for field in known.keys() - inputs.helpers().keys()}))
    assert _changed_inputs(tmp_path, inputs) == {}
    digests.write_text(json.dumps(known))
    changed = resolved(tmp_path, "{configMap: {name: files}}", job=job.replace("ONE = 1", "ONE = 2"))
    assert list(_changed_inputs(tmp_path, changed)) == ["content of grader own, helper.py"]


@pytest.mark.parametrize("uri", ["./rows.jsonl", "file://rows.jsonl", "file://{folder}/rows.jsonl"])
def test_a_relative_path_is_relative_to_the_manifest(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "rows.jsonl").write_text("{}")
    inputs = resolved(tmp_path, f"{{uri: '{uri.format(folder=tmp_path)}'}}")
    assert inputs.dataset.location == str(tmp_path / "rows.jsonl")


def test_a_remote_uri_is_left_to_the_trainer(tmp_path: Path) -> None:
    inputs = resolved(tmp_path, "{uri: 'https://example.com/rows.jsonl'}")
    assert inputs.dataset.location == "https://example.com/rows.jsonl"
    assert inputs.dataset.digest() is None


def test_a_flag_replaces_what_only_a_cluster_has(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}")
    claim = "{persistentVolumeClaim: {claimName: data, path: rows.jsonl}}"
    assert resolved(tmp_path, claim, Overrides(dataset=rows)).dataset.location == str(rows)
    with pytest.raises(UserError, match=r"spec.dataset.persistentVolumeClaim.*'data'.*--dataset FILE"):
        resolved(tmp_path, claim)


def test_a_missing_config_map_or_key_is_named_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"spec.dataset.configMap.name: no ConfigMap 'rows'.*--dataset FILE"):
        resolved(tmp_path, "{configMap: {name: rows}}")
    with pytest.raises(UserError, match=r"configMap.key: .* has no 'a.jsonl'; it has grader.py, train.jsonl"):
        resolved(tmp_path, "{configMap: {name: files, key: a.jsonl}}")
    job = JOB.replace("python: {configMap: {name: files}}", "python: {configMap: {name: code}}")
    with pytest.raises(UserError, match=r"--grader own=FILE"):
        resolved(tmp_path, "{configMap: {name: files}}", job=job)


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"spec.dataset.uri: .*none.jsonl is not a file"):
        resolved(tmp_path, "{uri: ./none.jsonl}")
    said = "--grader other: no grader of this name has its code in a ConfigMap; name one of: own"
    with pytest.raises(UserError, match=said):
        resolved(tmp_path, "{configMap: {name: files}}", Overrides(graders={"other": tmp_path}))


def test_flags_change_the_spec_and_are_checked_like_it(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB.replace("DATASET", "{configMap: {name: files}}"))
    job = load(path).job
    changed = with_overrides(job, seed=7, max_steps=3).spec
    assert (changed.training.seed, changed.stop and changed.stop.max_steps) == (7, 3)
    assert with_overrides(job, None, None) == job
    with pytest.raises(UserError, match=r"spec.stop.maxSteps: 0 is out of range; allowed is at least 1"):
        with_overrides(job, None, 0)


def test_gpus_are_used_as_far_as_manifest_and_machine_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(device, "torch_has_cuda", lambda: True)
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / name).touch()
    monkeypatch.setattr(device, "gpu_of_this_machine", lambda: None)
    assert device.detect(None, tmp_path) == ("cuda", 1, None)
    assert device.detect(Resources(gpus=8), tmp_path) == ("cuda", 2, None)
    assert device.detect(Resources(gpus=0), tmp_path) == ("cpu", 0, None)
    assert device.detect(Resources(accelerator=Accelerator(name="cpu")), tmp_path) == ("cpu", 0, None)
    assert device.detect(Resources(gpus=1), tmp_path / "none") == ("cpu", 0, None)
    known = Kind(NVIDIA, 80e9, "nvidia-h100-80gb")
    monkeypatch.setattr(device, "gpu_of_this_machine", lambda: known)
    assert device.detect(None, tmp_path) == ("cuda", 2, known), "the plan decides how many GPUs are used"
    assert device.detect(Resources(gpus=1), tmp_path) == ("cuda", 1, known)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device.detect(None, tmp_path) == ("cpu", 0, None)


def test_a_run_on_the_cpu_says_why_it_does_not_use_the_gpus_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device.unused_gpus(None, tmp_path) is None
    (tmp_path / "nvidia0").touch()
    for resources, reason in (
        (None, "1 GPU, but the installed torch is a build for the CPU"),
        (Resources(gpus=2), "1 GPU, but the installed torch is a build for the CPU"),
        (Resources(gpus=0), "1 GPU, but spec.resources.gpus is 0"),
        (Resources(accelerator=Accelerator(name="cpu")), "1 GPU, but spec.resources.accelerator.name is cpu"),
    ):
        assert reason in str(device.unused_gpus(resources, tmp_path))
