"""rft push copies the files of rft export to the hub and to a bucket. The tests read the copies back."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner, Result

from rft_api.effective import effective
from rft_api.validation import parse
from rft_cli.main import app
from rft_run.config import JobIdentity, RunConfig
from rft_run.destination import HubDestination, S3Destination
from rft_trainer.push import push
from rft_trainer.remote.sending import PushError
from tests.manifests import manifest
from tests.trainer.hub_support import TOKEN, Hub, Repository, serving_hub

PROMPT = torch.tensor([[2, 3, 12, 4, 5]])
# The hub's client passes open files to httpx in a deprecated way.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
FILES = ["README.md", "adapter_config.json", "adapter_model.safetensors"]


@pytest.fixture(scope="module")
def run(character_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run with an adapter that changes the model's output."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(1)
    lora = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", init_lora_weights=False)
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(character_model), lora)
    tuned.save_pretrained(str(folder / "adapter"))
    spec = parse(manifest(model={"name": str(character_model)})).spec
    config = RunConfig(
        job=JobIdentity(name="job", namespace="team", uid="uid"),
        spec=spec,
        effective=effective(spec, "uid"),
        run_dir=str(folder),
        dataset_path="rows.jsonl",
    )
    (folder / "run.json").write_text(json.dumps(config.dump()))
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    constants = pytest.importorskip("huggingface_hub.constants")
    with serving_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        for name in ("HF_HUB_OFFLINE", "RFT_PUSH_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield hub


def pushed(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["push", *map(str, arguments)])


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(PROMPT).logits
    return found


def tuned(base: Path, adapter: Path) -> torch.Tensor:
    return logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter)))


def objects(client: Any) -> dict[str, bytes]:
    listed = client.list_objects_v2(Bucket="results").get("Contents", [])
    return {
        each["Key"]: client.get_object(Bucket="results", Key=each["Key"])["Body"].read() for each in listed
    }


def exported(run: Path, folder: Path) -> dict[str, bytes]:
    assert CliRunner().invoke(app, ["export", str(run), "--output", str(folder)]).exit_code == 0
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_what_the_hub_gets_is_what_export_writes_and_peft_loads_it(
    run: Path, hub: Hub, character_model: Path, tmp_path: Path
) -> None:
    from huggingface_hub import snapshot_download

    result = pushed(run, "hf://team/sums")
    assert result.exit_code == 0, result.stderr
    assert hub.repositories["team/sums"].private
    copy = Path(
        snapshot_download("team/sums", endpoint=hub.address, local_dir=tmp_path / "copy", token=TOKEN)
    )
    assert {name: (copy / name).read_bytes() for name in FILES} == exported(run, tmp_path / "exported")
    torch.testing.assert_close(tuned(character_model, copy), tuned(character_model, run / "adapter"))
    assert f"{hub.address}/team/sums (3 files sent, 0 were there already)" in result.stdout
    assert 'model = PeftModel.from_pretrained(base, "team/sums")' in result.stdout
    assert TOKEN not in result.output


def test_what_a_bucket_gets_is_what_export_writes_and_peft_loads_it(
    run: Path, bucket: Any, character_model: Path, tmp_path: Path
) -> None:
    result = pushed(run, "s3://results/adapters/sums/")
    assert result.exit_code == 0, result.stderr
    found = objects(bucket)
    assert found == {f"adapters/sums/{name}": raw for name, raw in exported(run, tmp_path / "out").items()}
    copy = tmp_path / "copy"
    copy.mkdir()
    for key, raw in found.items():
        (copy / key.rpartition("/")[2]).write_bytes(raw)
    torch.testing.assert_close(tuned(character_model, copy), tuned(character_model, run / "adapter"))
    assert "aws s3 cp --recursive s3://results/adapters/sums ADAPTER" in result.stdout
    assert "hidden" not in result.output


def test_a_second_push_to_a_branch_of_the_hub_sends_only_what_differs(
    run: Path, hub: Hub, tmp_path: Path
) -> None:
    hub.repositories["team/sums"] = Repository(private=True)
    to = HubDestination("team/sums", "second")
    folder = tmp_path / "folder"
    exported(run, folder)
    assert push(folder, to).sent == sorted(FILES, key=lambda name: (name == FILES[1], name))
    assert push(folder, to).sent == []
    assert (hub.uploads, hub.repositories["team/sums"].commits) == (1, 1)
    (folder / "README.md").write_text("---\nlibrary_name: peft\n---\nchanged\n")
    again = push(folder, to)
    assert (again.sent, sorted(again.kept)) == (["README.md"], FILES[1:])
    assert hub.uploads == 1
    assert again.address == f"{hub.address}/team/sums/tree/second"
    assert list(hub.repositories["team/sums"].branches["main"]) == [".gitattributes"]


def test_a_push_to_the_hub_that_fails_before_its_commit_changes_nothing_and_is_repeated(
    run: Path, hub: Hub, tmp_path: Path
) -> None:
    exported(run, tmp_path / "folder")
    hub.failing["/commit/"] = [500]
    with pytest.raises(PushError, match="hf://team/sums: the hub did not accept") as caught:
        push(tmp_path / "folder", HubDestination("team/sums"))
    assert caught.value.temporary
    assert list(hub.repositories["team/sums"].branches["main"]) == [".gitattributes"]
    assert push(tmp_path / "folder", HubDestination("team/sums")).kept == []
    assert hub.uploads == 1  # the first push has uploaded the weights already


def test_an_interrupted_push_to_a_bucket_leaves_no_part_of_a_file_and_is_completed(
    run: Path, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, to = exported(run, tmp_path / "folder"), S3Destination("s3://results/sums")

    def interrupted(file: Any, stream: Any, length: int) -> None:
        stream.write(file.read(10))
        if "safetensors" in stream.path:
            raise KeyboardInterrupt
        stream.write(file.read())

    with monkeypatch.context() as patched:
        patched.setattr("rft_trainer.remote.s3.shutil.copyfileobj", interrupted)
        with pytest.raises(KeyboardInterrupt):
            push(tmp_path / "folder", to)
    assert objects(bucket) == {"sums/README.md": files["README.md"]}
    done = push(tmp_path / "folder", to)
    assert (sorted(done.sent), done.kept) == (FILES[1:], ["README.md"])
    assert objects(bucket) == {f"sums/{name}": raw for name, raw in files.items()}


def test_an_object_of_the_same_size_and_another_content_is_sent_again(
    run: Path, bucket: Any, tmp_path: Path
) -> None:
    files, to = exported(run, tmp_path / "folder"), S3Destination("s3://results/sums")
    assert len(push(tmp_path / "folder", to).sent) == 3
    weights = "adapter_model.safetensors"
    bucket.put_object(Bucket="results", Key=f"sums/{weights}", Body=bytes(len(files[weights])))
    bucket.put_object(Bucket="results", Key="sums/old.bin", Body=b"of another push")
    done = push(tmp_path / "folder", to)
    assert (done.sent, done.others) == ([weights], ["old.bin"])
    assert objects(bucket)[f"sums/{weights}"] == files[weights]
    assert push(tmp_path / "folder", to).sent == []


def test_a_file_of_several_parts_arrives_whole(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rft_trainer.remote.s3._PART", 5 << 20)
    content = os.urandom(1 << 20) * 11
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.safetensors").write_bytes(content)
    to = S3Destination("s3://results/large")
    assert push(tmp_path / "folder", to).sent == ["model.safetensors"]
    assert objects(bucket)["large/model.safetensors"] == content
    assert push(tmp_path / "folder", to).kept == ["model.safetensors"]


def test_a_public_repository_gets_files_only_if_public_is_said(run: Path, hub: Hub) -> None:
    hub.repositories["team/sums"] = Repository(private=False)
    with pytest.raises(PushError, match=r"is public, but a private one was asked for; .*rft push --public"):
        push(run / "adapter", HubDestination("team/sums"))
    assert hub.repositories["team/sums"].commits == 0
    assert pushed(run, "hf://team/sums", "--public").exit_code == 0
    assert hub.repositories["team/sums"].commits == 1


def test_a_refused_token_is_named_by_its_variable_and_never_shown(
    run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "hf_" + "b" * 34
    monkeypatch.setenv("RFT_PUSH_TOKEN", wrong)
    result = pushed(run, "hf://team/sums")
    assert result.exit_code == 1
    assert "the hub refuses the token of RFT_PUSH_TOKEN" in result.stderr
    assert "may write to team" in result.stderr
    assert wrong not in result.output
    assert f"Bearer {TOKEN}" not in hub.tokens  # HF_TOKEN is not used if RFT_PUSH_TOKEN is set


@pytest.mark.parametrize(
    ("setting", "value", "uri", "message"),
    [
        ("AWS_REGION", "us-east-1", "s3://nosuch/sums", "there is no bucket nosuch"),
        (
            "AWS_ENDPOINT_URL",
            "http://127.0.0.1:9",
            "s3://results/sums",
            "the bucket did not accept",
        ),
    ],
)
def test_errors_of_a_bucket_name_the_destination(
    run: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, uri: str, message: str
) -> None:
    monkeypatch.setenv(setting, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(PushError, match=f"{uri}: {message}"):
        push(run / "adapter", S3Destination(uri))


def test_a_link_in_the_folder_is_not_followed(bucket: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hidden")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(PushError, match="is a symbolic link"):
        push(tmp_path / "folder", S3Destination("s3://results/linked"))
    assert objects(bucket) == {}


def failed_push(run: Path, folder: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> PushError:
    """Push to a bucket, where sending the first file raises ``error``. Return the error of the push."""

    def fails(*_given: Any) -> None:
        raise error

    exported(run, folder)
    monkeypatch.setattr("rft_trainer.remote.s3.shutil.copyfileobj", fails)
    with pytest.raises(PushError) as caught:
        push(folder, S3Destination("s3://results/sums"))
    return caught.value


@pytest.mark.parametrize(
    ("code", "status", "temporary", "advice"),
    [
        ("InvalidToken", 400, False, "AWS_SESSION_TOKEN"),
        ("ExpiredToken", 400, False, "AWS_SESSION_TOKEN"),
        (
            "AuthorizationHeaderMalformed",
            400,
            False,
            "AWS_DEFAULT_REGION to the region of the bucket",
        ),
        ("PermanentRedirect", 301, False, "AWS_DEFAULT_REGION"),
        ("IllegalLocationConstraintException", 400, False, "AWS_DEFAULT_REGION"),
        ("AccessDenied", 403, False, "credentials that may read, list and write"),
        ("EntityTooLarge", 400, False, "did not accept"),
        ("KMS.DisabledException", 400, False, "did not accept"),
        ("NotImplemented", 501, False, "did not accept"),
        ("TemporaryRedirect", 307, True, "did not accept"),
        ("OperationAborted", 409, True, "did not accept"),
        ("RequestThrottled", 400, True, "did not accept"),
        ("InternalError", 500, True, "did not accept"),
        ("SlowDown", 503, True, "did not accept"),
        ("RequestTimeout", 400, True, "did not accept"),
        ("TooManyRequests", 429, True, "did not accept"),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(
    run: Path, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, code: str, status: int,
    temporary: bool, advice: str,
) -> None:  # fmt: skip
    errors = pytest.importorskip("s3fs.errors")
    client_error = pytest.importorskip("botocore.exceptions").ClientError
    response = {
        "Error": {"Code": code, "Message": f"said {code}"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }

    error = errors.translate_boto_error(client_error(response, "PutObject"))
    failed = failed_push(run, tmp_path / "folder", error, monkeypatch)
    assert re.search(advice, str(failed))
    assert failed.temporary == temporary
    assert objects(bucket) == {}


@pytest.mark.parametrize(
    ("name", "given", "temporary", "advice"),
    [
        ("ProfileNotFound", {"profile": "teem"}, False, "set AWS_PROFILE"),
        ("UnauthorizedSSOTokenError", {}, False, "set AWS_PROFILE"),
        ("NoCredentialsError", {}, False, "set AWS_PROFILE"),
        ("InvalidRegionError", {"region_name": "a b"}, False, "did not accept"),
        ("EndpointConnectionError", {"endpoint_url": "http://s3"}, True, "did not accept"),
        ("ConnectTimeoutError", {"endpoint_url": "http://s3"}, True, "did not accept"),
        ("ReadTimeoutError", {"endpoint_url": "http://s3"}, True, "did not accept"),
    ],
)
def test_a_push_that_gets_no_response_is_tried_again_if_the_network_failed(
    run: Path, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, name: str,
    given: dict[str, str], temporary: bool, advice: str,
) -> None:  # fmt: skip
    kind = getattr(pytest.importorskip("botocore.exceptions"), name)
    failed = failed_push(run, tmp_path / "folder", kind(**given), monkeypatch)
    assert re.search(advice, str(failed))
    assert failed.temporary == temporary
