"""Which servers rft contacts for a manifest that a stranger wrote, and which of them get credentials."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rft_api.validation import parse
from rft_cli.errors import UserError
from rft_cli.local.contacts import WANDB, YOUR_WANDB, Shell, contacts, permissions, refuse_untrusted
from rft_cli.local.inputs import Input, Inputs
from rft_cli.local.origins import Permission, origin_of, shown
from rft_cli.local.trainer import train, trainer_command
from rft_cli.main import app
from tests.manifests import manifest
from tests.unit.trainer_support import fake_trainer

SECRET = "s3cr3t-value"
EVIL = "https://evil.example"
JUDGE = {"name": "judge", "model": {"url": f"{EVIL}/v1", "model": "m", "prompt": "{completion}"}}
SIGNED = {"name": "judge", "model": {**JUDGE["model"], "secretRef": {"name": "s", "key": "api-key"}}}  # type: ignore[dict-item]
VARIABLE = "RFT_SECRET_JUDGE_API_KEY"


def shell(home: Path = Path("/nowhere"), /, **environment: str) -> Shell:
    return Shell(environment, home)


def found(
    shell: Shell, dataset: str = "/rows.jsonl", evaluation: str | None = None, **spec: Any
) -> list[str]:
    """Return what ``rft run`` prints about each server that it contacts."""
    return [str(contact) for contact in _contacts(shell, dataset, evaluation, **spec)]


def _contacts(shell: Shell, dataset: str = "/rows.jsonl", evaluation: str | None = None, **spec: Any) -> Any:
    own = {"model": {"name": "/models/m"}, **spec}
    inputs = Inputs(Input(dataset), Input(evaluation) if evaluation else None, {}, {})
    return contacts(parse(manifest(**own)).spec, inputs, shell)


def refused(
    shell: Shell, *allowed: str, push_to: Sequence[str] = (), public: bool = False, **spec: Any
) -> str:
    """Return the message that refuses a run, or "" if the run may start.

    ``allowed`` are the values of ``--send-token-to``, and ``push_to`` those of ``--push-to``.
    """
    try:
        refuse_untrusted(_contacts(shell, **spec), permissions(allowed, push_to, public=public))
    except UserError as error:
        return str(error)
    return ""


def wandb(**settings: Any) -> dict[str, Any]:
    return {"tracking": {"wandb": {"project": "p", "secretRef": {"name": "s", "key": "k"}, **settings}}}


def mlflow(uri: str) -> dict[str, Any]:
    return {"tracking": {"mlflow": {"trackingUri": uri, "experiment": "e"}}}


def test_a_run_with_everything_on_this_machine_contacts_nobody() -> None:
    assert found(shell(HF_TOKEN=SECRET, WANDB_API_KEY=SECRET)) == []


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "https://huggingface.co (spec.model.name): no credential"),
        ({"HF_TOKEN": SECRET}, "https://huggingface.co (spec.model.name): HF_TOKEN"),
        (
            {"HUGGING_FACE_HUB_TOKEN": SECRET},
            "https://huggingface.co (spec.model.name): HUGGING_FACE_HUB_TOKEN",
        ),
        (
            {"HF_TOKEN": SECRET, "HF_ENDPOINT": "https://hub.corp"},
            "https://hub.corp (spec.model.name): HF_TOKEN",
        ),
        (
            {"HF_TOKEN": SECRET, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"},
            "https://huggingface.co (spec.model.name): no credential",
        ),
    ],
)
def test_the_hubs_address_is_the_users_own_and_its_token_is_named(
    environment: dict[str, str], said: str
) -> None:
    model = {"name": "owner/model"}
    assert found(shell(**environment), model=model) == [said]
    assert refused(shell(**environment), model=model) == ""
    assert found(shell(**environment, HF_HUB_OFFLINE="1"), model=model) == []


def test_a_stored_hub_token_is_named_too(tmp_path: Path) -> None:
    file = tmp_path / ".cache" / "huggingface" / "token"
    file.parent.mkdir(parents=True)
    file.write_text(SECRET)
    (said,) = found(shell(tmp_path), model={"name": "owner/model"})
    assert said == f"https://huggingface.co (spec.model.name): {file}"


HUB: dict[str, Any] = {"output": {"hub": {"repository": "team/sums", "revision": "v2"}}}
PUBLIC: dict[str, Any] = {"output": {"hub": {"repository": "team/sums", "private": False}}}
S3: dict[str, Any] = {"output": {"s3": {"uri": "s3://bucket/sums"}}}


@pytest.mark.parametrize(
    ("spec", "environment", "said"),
    [
        (
            HUB,
            {"HF_TOKEN": SECRET},
            "https://huggingface.co (spec.output.hub.repository, which writes hf://team/sums@v2): HF_TOKEN",
        ),
        (
            HUB,
            {"HF_TOKEN": SECRET, "RFT_PUSH_TOKEN": SECRET},
            "https://huggingface.co (spec.output.hub.repository, which writes hf://team/sums@v2):"
            " RFT_PUSH_TOKEN",
        ),
        (
            PUBLIC,
            {"HF_ENDPOINT": "https://hub.corp"},
            "https://hub.corp (spec.output.hub.repository, which writes hf://team/sums, a public repository):"
            " no credential",
        ),
        (
            S3,
            {"AWS_PROFILE": "me"},
            "https://s3.amazonaws.com (spec.output.s3.uri, which writes s3://bucket/sums): AWS_PROFILE",
        ),
    ],
)
def test_where_the_result_is_written_is_said_before_the_start(
    spec: dict[str, Any], environment: dict[str, str], said: str
) -> None:
    assert found(shell(**environment), **spec) == [said]


@pytest.mark.parametrize(
    ("spec", "field", "to"),
    [(HUB, "hub.repository", "hf://team/sums@v2"), (S3, "s3.uri", "s3://bucket/sums")],
)
@pytest.mark.parametrize("environment", [{}, {"HF_TOKEN": SECRET, "AWS_PROFILE": "me"}])
def test_the_result_is_written_only_where_the_option_says(
    environment: dict[str, str], spec: dict[str, Any], field: str, to: str
) -> None:
    mine = shell(**environment)
    assert refused(mine, **spec) == (
        f"spec.output.{field}: this machine would write the adapter to {to}; no option of yours names a"
        f" destination; to allow this one, add --push-to {to}, or remove spec.output from the manifest"
    )
    assert refused(mine, push_to=["hf://me/other", to], **spec) == ""


@pytest.mark.parametrize(
    ("spec", "other"),
    [
        (HUB, "hf://team/sums"),
        (HUB, "hf://team/sums@v"),
        (HUB, "hf://team/sum@v2"),
        (PUBLIC, "hf://team/sums@v2"),
        (S3, "s3://bucket/sum"),
        (S3, "s3://bucket/sums/deeper"),
        (S3, "s3://bucke/sums"),
        (S3, "hf://bucket/sums"),
        ({"output": {"s3": {"uri": "s3://bucket/sums/deeper"}}}, "s3://bucket/sums"),
    ],
)
def test_a_destination_that_is_only_similar_is_not_allowed(spec: dict[str, Any], other: str) -> None:
    said = refused(shell(), push_to=[other], public=True, **spec)
    assert f"; allowed is {other}; to allow this one, add --push-to " in said


def test_a_public_repository_needs_an_option_of_its_own() -> None:
    allowed = "hf://team/sums"
    assert refused(shell(), push_to=[allowed], **PUBLIC) == (
        "spec.output.hub.repository: this machine would write the adapter to hf://team/sums, a public"
        " repository; allowed is hf://team/sums, if it is private; to allow this one, add --public, or remove"
        " spec.output from the manifest"
    )
    assert "add --push-to hf://team/sums --public, or" in refused(shell(), **PUBLIC)
    assert refused(shell(), push_to=[allowed], public=True, **PUBLIC) == ""


@pytest.mark.parametrize(
    ("text", "meant"),
    [("team/sums", "hf://team/sums"), ("s3a://b-c/sums", "s3://b-c/sums"), ("", "for instance hf://")],
)
def test_an_option_that_names_no_destination_is_refused(text: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"^--push-to: .* allowed are hf://.* write {meant}"):
        permissions([], [text])


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (
            "https://host.example:8443/rows?sig=1",
            "https://host.example:8443 (spec.dataset.uri): no credential",
        ),
        ("s3://bucket/rows", "https://minio.corp (spec.dataset.uri): AWS_ACCESS_KEY_ID"),
        ("gs://b/r", "https://storage.googleapis.com (spec.dataset.uri): GOOGLE_APPLICATION_CREDENTIALS"),
        ("hf://datasets/o/n/r", "https://huggingface.co (spec.dataset.uri): HF_TOKEN"),
    ],
)
def test_what_a_dataset_contacts_is_said_without_query_and_value(uri: str, said: str) -> None:
    mine = shell(
        AWS_ACCESS_KEY_ID=SECRET,
        AWS_ENDPOINT_URL="https://minio.corp",
        GOOGLE_APPLICATION_CREDENTIALS="/key.json",
        HF_TOKEN=SECRET,
    )
    assert found(mine, uri) == [said]
    assert refused(mine, dataset=uri) == ""


@pytest.mark.parametrize(
    "uri",
    [
        "sftp://evil.example/rows",
        "abfs://box@evil.example/rows",
        "simplecache::s3://b/r",
        "./a::https://evil.example/b",
    ],
)
def test_a_dataset_whose_library_finds_credentials_in_its_own_way_needs_the_option(uri: str) -> None:
    said = refused(shell(), dataset=uri)
    assert said.startswith("spec.dataset.uri: ")
    assert f"--send-token-to '{uri}'" in said
    assert refused(shell(), uri, dataset=uri) == ""
    assert refused(shell(), "evil.example", dataset=uri)


HOSTILE = (
    EVIL,
    "http://api.wandb.ai",
    "https://api.wandb.ai:8443",
    "https://api.wandb.ai.evil.example",
    "https://api.wandb.ai@evil.example",
    "https://api.wandb.ai:443@evil.example",
    "https://evil.example\\@api.wandb.ai",
    "https://api.wandb.ai\\@evil.example",
    "https://evil.example#@api.wandb.ai",
    "https://evil.example?https://api.wandb.ai",
    "https://api.wandb.ai\t.evil.example",
    "https://api.wandb.ai\n.evil.example",
    "https://api.wandb.\u0430i",
    "https://api.wandb.ai%2eevil.example",
    " https://api.wandb.ai",
    "//evil.example",
    "api.wandb.ai",
)


@pytest.mark.parametrize("address", HOSTILE)
def test_an_address_that_is_not_the_users_own_gets_no_key(address: str) -> None:
    said = refused(shell(WANDB_API_KEY=SECRET), **wandb(baseUrl=address))
    assert said.startswith("spec.tracking.wandb.baseUrl: ")
    assert "WANDB_API_KEY" in said
    assert f"allowed is {' or '.join(WANDB)} (WANDB_BASE_URL); write https://api.wandb.ai, or" in said
    assert "--send-token-to" in said
    assert SECRET not in said
    assert said.isprintable()
    assert refused(shell(), **wandb(baseUrl=address)) == ""


@pytest.mark.parametrize(
    "address", ["https://api.wandb.ai", "https://API.wandb.ai:443/", "HTTPS://api.wandb.ai/x"]
)
def test_the_vendors_own_address_gets_the_key_however_it_is_spelt(address: str) -> None:
    assert refused(shell(WANDB_API_KEY=SECRET), **wandb(baseUrl=address)) == ""


def test_the_users_own_server_takes_the_place_of_the_vendors() -> None:
    mine = shell(WANDB_API_KEY=SECRET, WANDB_BASE_URL="https://wandb.corp")
    assert refused(mine, **wandb()) == ""
    assert refused(mine, **wandb(baseUrl="https://wandb.corp/")) == ""
    assert "allowed is https://wandb.corp" in refused(mine, **wandb(baseUrl="https://api.wandb.ai"))
    assert found(mine, **wandb()) == ["https://wandb.corp (spec.tracking.wandb.baseUrl): WANDB_API_KEY"]
    assert found(shell(WANDB_API_KEY=SECRET, WANDB_MODE="offline"), **wandb(baseUrl=EVIL)) == []


def test_without_an_address_in_the_manifest_the_key_goes_where_wandb_login_said() -> None:
    said = [f"{YOUR_WANDB} (spec.tracking.wandb): WANDB_API_KEY"]
    assert found(shell(WANDB_API_KEY=SECRET), **wandb()) == said
    assert refused(shell(WANDB_API_KEY=SECRET), **wandb()) == ""


@pytest.mark.parametrize("name", ["TOKEN", "USERNAME", "PASSWORD", "AUTH", "AWS_SIGV4"])
def test_mlflow_gets_credentials_only_at_the_users_own_tracking_uri(name: str) -> None:
    variable = f"MLFLOW_TRACKING_{name}"
    said = refused(shell(**{variable: SECRET}), **mlflow(EVIL))
    assert said.startswith(
        f"spec.tracking.mlflow.trackingUri: this machine would send {variable} to https://evil.example;"
    )
    assert "no setting of yours names a server (MLFLOW_TRACKING_URI)" in said
    assert refused(shell(**{variable: SECRET}, MLFLOW_TRACKING_URI=EVIL), **mlflow(f"{EVIL}/")) == ""
    assert refused(shell(), **mlflow(EVIL)) == ""


@pytest.mark.parametrize(
    "uri", ["postgresql://evil.example/db", "uc:https://evil.example", "plugin://evil.example"]
)
def test_a_tracking_uri_of_a_plugin_or_database_needs_the_option(uri: str) -> None:
    assert "whatever credentials MLflow finds" in refused(shell(), **mlflow(uri))
    assert refused(shell(), uri, **mlflow(uri)) == ""


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/runs", "sqlite:///runs.db"])
def test_a_tracking_uri_on_this_machine_contacts_nobody(uri: str) -> None:
    assert found(shell(MLFLOW_TRACKING_TOKEN=SECRET), **mlflow(uri)) == []


def test_a_password_in_an_address_is_not_printed() -> None:
    given = mlflow("https://me:hunter2hunter2@mlflow.example")
    with_credentials = shell(MLFLOW_TRACKING_TOKEN=SECRET)
    said = [*found(with_credentials, **given), refused(with_credentials, **given)]
    assert all("mlflow.example" in text for text in said)
    assert "hunter2" not in "".join(said)


def test_a_netrc_that_cannot_be_read_gives_no_credentials(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_bytes(b"machine other login me password \xff\xfe\n")
    said = found(shell(tmp_path), **mlflow("https://tracking.example"))
    assert not any("netrc" in line for line in said)


def test_a_user_without_a_home_folder_has_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", missing)
    assert not (Shell.of_this_process().home / ".netrc").exists()


def test_netrc_is_trusted_for_the_host_that_it_names_and_for_no_other(tmp_path: Path) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine evil.example login me password p\n")
    assert found(shell(tmp_path), **mlflow(EVIL)) == [f"{EVIL} (spec.tracking.mlflow.trackingUri): netrc"]
    assert refused(shell(tmp_path), **mlflow(EVIL)) == ""
    netrc.write_text("default login me password p\n")
    assert "the default entry of netrc" in refused(shell(tmp_path), **mlflow(EVIL))
    netrc.write_text("machine other login me password p\n")
    assert found(shell(tmp_path), **mlflow(EVIL)) == [
        f"{EVIL} (spec.tracking.mlflow.trackingUri): no credential"
    ]


def test_stored_credentials_of_mlflow_are_sent_to_no_strange_server(tmp_path: Path) -> None:
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").touch()
    assert "~/.mlflow/credentials" in refused(shell(tmp_path), **mlflow(EVIL))


def test_a_judges_token_needs_the_option_since_no_setting_names_a_judge() -> None:
    mine = shell(**{VARIABLE: SECRET})
    assert refused(mine, graders=[SIGNED]) == (
        f"spec.graders[0].model.url: this machine would send {VARIABLE} to https://evil.example; no"
        " setting of yours names a server; to allow this server, add --send-token-to evil.example"
    )
    for allowed in ("evil.example", "evil.example:443", EVIL, f"{EVIL}/v1", "EVIL.example"):
        assert refused(mine, allowed, graders=[SIGNED]) == "", allowed
    for other in ("example", "evil.example:80", "http://evil.example", "xevil.example", "other"):
        assert refused(mine, other, graders=[SIGNED]), other
    assert refused(mine, graders=[JUDGE]) == ""
    assert refused(shell(), graders=[SIGNED]) == ""


def test_all_refusals_are_said_at_once() -> None:
    mine = shell(**{VARIABLE: SECRET}, WANDB_API_KEY=SECRET)
    lines = refused(mine, graders=[SIGNED], **wandb(baseUrl=EVIL)).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "spec.graders[0].model.url",
        "spec.tracking.wandb.baseUrl",
    ]


@pytest.mark.parametrize("text", ["", "a b", "\x1b]52;c;x\x07", "host:port", "user@host"])
def test_an_option_that_names_no_server_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--send-token-to: .* names no server; allowed are HOST"):
        permissions([text])


def test_a_permission_with_a_port_is_for_this_port_only() -> None:
    assert Permission("[::1]:8000").covers("http://[::1]:8000/v1")
    assert not Permission("[::1]:8000").covers("http://[::1]:8001/v1")
    assert Permission("h:80").covers("http://h/")
    assert not Permission("h:80").covers("https://h/")


def test_an_address_of_a_manifest_is_shown_without_control_characters() -> None:
    assert shown("https://a\x1b]52;c;eA==\x07b") == r"https://a\x1b]52;c;eA==\x07b"
    assert origin_of("https://a\x1b[0m.example/") is None


JOB = """
apiVersion: v1
kind: ConfigMap
metadata: {name: rows}
data:
  train.jsonl: '{"messages": [{"role": "user", "content": "?"}], "answer": "x"}'
---
apiVersion: rft.dev/v1alpha1
kind: RFTJob
metadata: {name: sums}
spec:
  model: {name: owner/model}
  dataset: {configMap: {name: rows}}
  graders:
    - name: judge
      model:
        {url: "https://evil.example/v1", model: m, prompt: "{completion}", secretRef: {name: s, key: api-key}}
    - {name: mine, python: {inline: "def grade(completion, row): return 1"}}
  storage: {ephemeral: {}}
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a stranger's manifest. ``rft run`` starts a fake trainer, which ends at once."""
    fake_trainer(tmp_path, monkeypatch)
    monkeypatch.setenv(VARIABLE, SECRET)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def run(job: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["run", str(job), "--output", str(job.parent / "out"), *options])


@pytest.mark.parametrize("command", ["run", "grade"])
def test_a_refused_command_starts_nothing_and_writes_nothing(job: Path, command: str) -> None:
    options = ["--output", str(job.parent / "out")] if command == "run" else []
    result = CliRunner().invoke(app, [command, str(job), *options])
    assert result.exit_code == 1
    assert f"spec.graders[0].model.url: this machine would send {VARIABLE} to https://evil" in result.stderr
    assert SECRET not in result.output
    assert not (job.parent / "out").exists()


def test_a_run_says_first_whom_it_contacts_with_what_and_whose_code_it_runs(job: Path) -> None:
    result = run(job, "--send-token-to", "evil.example")
    said = result.stdout.splitlines()
    assert said[0].startswith("starting sums")
    assert said[1:4] == [
        "contacts https://huggingface.co (spec.model.name): HF_TOKEN",
        f"contacts https://evil.example (spec.graders[0].model.url): {VARIABLE}",
        "runs the manifest's code with your rights, so it can read your files: grader mine",
    ]
    assert SECRET not in result.output


def test_servers_that_are_always_allowed_come_from_the_environment(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RFT_SEND_TOKEN_TO", "judge.corp evil.example")
    assert "contacts https://evil.example" in run(job).stdout


@pytest.fixture
def pushing(job: Path) -> Path:
    """Return the path of a manifest that pushes its result to the hub. Its judge gets no token."""
    job.write_text(JOB.replace(", secretRef: {name: s, key: api-key}", "") + PUSHED)
    return job


PUSHED = "  output: {hub: {repository: team/sums}}\n"


def test_a_run_that_would_write_elsewhere_starts_nothing_and_writes_nothing(pushing: Path) -> None:
    result = run(pushing, "--push-to", "hf://team/other")
    assert result.exit_code == 1
    assert "spec.output.hub.repository: this machine would write" in result.stderr
    assert not (pushing.parent / "out").exists()


@pytest.mark.parametrize("again", [False, True])
def test_a_run_writes_where_the_option_allows_also_when_it_is_resumed(pushing: Path, again: bool) -> None:
    options = ["--push-to", "hf://team/sums", "--push-to", "s3://bucket/sums"]
    if again:
        run(pushing, *options)
        assert "add --push-to hf://team/sums, or" in run(pushing).stderr
    result = run(pushing, *options)
    assert result.stdout.startswith("resuming sums" if again else "starting sums")
    assert "(spec.output.hub.repository, which writes hf://team/sums): HF_TOKEN" in result.stdout


def test_destinations_that_are_always_allowed_come_from_the_environment(
    pushing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RFT_PUSH_TO", "s3://bucket/sums hf://team/sums")
    assert "which writes hf://team/sums" in run(pushing).stdout
    pushing.write_text(pushing.read_text().replace("team/sums", "team/sums, private: false"))
    assert "add --public, or" in run(pushing).stderr


def test_a_module_in_the_working_folder_is_imported_by_no_process_of_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "this.py").write_text("open('imported', 'w').close()")
    monkeypatch.chdir(tmp_path)
    own = [*trainer_command()[:-1], "this"]
    subprocess.run(own, check=True, stdout=subprocess.DEVNULL)
    child = f"import subprocess, sys; subprocess.run([{sys.executable!r}, '-m', 'this'], stdout=2)"
    train([sys.executable, "-c", child], tmp_path / "log", lambda _: None, lambda _: None)
    assert "Zen of Python" in (tmp_path / "log").read_text()
    assert not (tmp_path / "imported").exists()


STRANGER = """
apiVersion: rft.dev/v1alpha1
kind: RFTJob
metadata: {name: sums}
spec:
  model: {name: owner/model, secretRef: {name: s, key: k}, adapter: {path: /etc/hostname}}
  dataset: {uri: "https://evil.example/rows.jsonl"}
  evaluation: {dataset: {uri: "s3://evil/rows.jsonl"}}
  graders:
    - {name: web, http: {url: "http://evil.example", secretRef: {name: s, key: k}}}
    - {name: judge, model: {url: "http://evil.example", model: m, prompt: "{completion}"}}
    - {name: schema, jsonSchema: {schema: '{"$schema": "https://json-schema.org/draft/2020-12/schema"}'}}
    - name: code
      python:
        inline: |
          import socket
          socket.create_connection(("evil.example", 80))
          def grade(completion, row): return 1
  tracking:
    wandb: {project: p, baseUrl: "https://evil.example", secretRef: {name: s, key: k}}
    mlflow: {trackingUri: "https://evil.example", experiment: e}
  template: {env: [{name: HF_ENDPOINT, value: "https://evil.example"}]}
  storage: {ephemeral: {}}
"""
WATCHED = """
import sys
seen = []
def watch(event, arguments):
    if event.split(".")[0] in ("open", "socket", "subprocess") or event in ("os.exec", "os.posix_spawn"):
        seen.append((event, str(arguments[0])))
sys.addaudithook(watch)
from typer.testing import CliRunner
from rft_cli.main import app
for command in COMMANDS:
    seen.clear()
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code in (0, 1) and not isinstance(ended.exception, Exception), ended.output
    for event, what in dict.fromkeys(seen):
        print(command[0], event, what, sep="\\t")
"""


@pytest.fixture
def events(tmp_path: Path) -> list[list[str]]:
    """What ``validate`` and ``plan`` open, contact or start. Each entry has three texts: the command, the
    name of Python's audit event, and the first argument of this event.

    The commands run in a new process. Its start takes more CPU time than a unit test may use, so it is in a
    fixture.
    """
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "?"}\n')
    (tmp_path / "stranger.yaml").write_text(STRANGER)
    (tmp_path / "local.yaml").write_text(JOB.replace("{configMap: {name: rows}}", "{uri: ./rows.jsonl}"))
    (tmp_path / ".netrc").write_text("machine evil.example login me password p\n")
    files = [str(tmp_path / name) for name in ("stranger.yaml", "local.yaml")]
    commands = [[command, file] for command in ("validate", "plan") for file in files]
    secrets = {"HF_TOKEN": SECRET, VARIABLE: SECRET, "WANDB_API_KEY": SECRET}
    ran = subprocess.run(
        [sys.executable, "-c", f"COMMANDS = {commands!r}\n{WATCHED}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, **secrets, "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    return [line.split("\t") for line in ran.stdout.splitlines()]


def test_validate_and_plan_contact_nobody_and_open_only_what_the_manifest_names(
    events: list[list[str]], tmp_path: Path
) -> None:
    assert {command for command, *_ in events} == {"validate", "plan"}
    named = {str(tmp_path / name) for name in ("stranger.yaml", "local.yaml", "rows.jsonl")}
    assert named <= {what for _, _, what in events}
    assert [event for event in events if event[1] != "open" or not _is_expected(event[2], named)] == []


def _is_expected(path: str, named: set[str]) -> bool:
    """Return whether a command may open a file.

    It may be a file in ``named``, one of Python's libraries, or the file with the kernel's boot ID.
    """
    libraries = [Path(place).resolve() for place in sys.path if place]
    inside = any(Path(path).resolve().is_relative_to(place) for place in libraries)
    return path in named or inside or path == "/proc/sys/kernel/random/boot_id"
