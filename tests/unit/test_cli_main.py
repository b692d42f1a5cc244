"""What all commands of rft share: few imports, version, help, shell completion, and the option -o."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from rft_cli.main import COMMANDS, app, function, summary

HEAVY = ("kubernetes", "torch", "matplotlib", "pydantic", "rich", "rft_api")


def rft(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_starts_without_what_only_commands_need() -> None:
    code = (
        "import sys; from rft_cli.main import app\n"
        "try: app(['--help'], prog_name='rft')\n"
        f"except SystemExit: print('imported:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "imported: []" in found.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_by_both_options_and_the_line_of_the_list(name: str) -> None:
    short, long = rft(name, "-h"), rft(name, "--help")
    assert short.exit_code == 0, short.output
    assert short.stdout == long.stdout
    found = function(name)
    first = found.info.help if isinstance(found, typer.Typer) else found.__doc__
    assert " ".join((first or "").split()).startswith(summary(name))
    assert len(summary(name)) > 10


def test_it_says_its_version() -> None:
    assert rft("--version").stdout.startswith("rft ")


def test_a_mistyped_command_is_answered_with_the_right_one() -> None:
    found = rft("valdate")
    assert found.exit_code == 2
    assert "Did you mean validate?" in found.stderr
    assert "Commands: new, import" in rft("zzz").stderr


def test_the_short_option_o_is_a_format_everywhere() -> None:
    group = typer.main.get_command(app)
    for name in COMMANDS:
        command = group.get_command(None, name)  # type: ignore[attr-defined]
        for parameter in command.params:
            if "-o" in parameter.opts:
                assert "--format" in parameter.opts, name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "_RFT_COMPLETE", "")
    assert f"complete_{shell}" in rft("completion", shell).stdout


def completed(line: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("_RFT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
    return CliRunner().invoke(app, [], prog_name="rft").stdout.split()


def test_commands_options_and_jobs_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cluster:
        def jobs(self) -> list[dict[str, dict[str, str]]]:
            return [{"metadata": {"name": name}} for name in ("sums", "summary", "other")]

    monkeypatch.setattr("rft_cli.options.connect", lambda *_: Cluster())
    assert completed("rft va", monkeypatch) == ["validate"]
    assert "--watch" in completed("rft submit --w", monkeypatch)
    for command in ("get", "watch", "logs", "suspend", "resume", "cancel"):
        assert completed(f"rft {command} sum", monkeypatch) == ["sums", "summary"]


def test_completion_says_nothing_where_there_is_no_cluster(
    no_cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert completed("rft logs x", monkeypatch) == []


@pytest.mark.parametrize("command", ["get", "watch", "logs", "suspend", "resume", "cancel"])
def test_a_runs_folder_is_not_taken_for_a_job(command: str, no_cluster: Path) -> None:
    (no_cluster / "sums").mkdir()
    (no_cluster / "sums" / "run.json").write_text("{}")
    assert "is the folder of a run on this machine" in rft(command, "sums").stderr
    (no_cluster / "plain").mkdir()
    assert "is a folder, and no job" in rft(command, "./plain").stderr
    assert "cannot be the name of a job" in rft(command, "runs/sums").stderr


@pytest.mark.parametrize("command", [("get",), ("watch", "sums"), ("logs", "sums")])
def test_without_a_cluster_it_says_which_kubeconfig_was_tried(
    command: tuple[str, ...], no_cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = rft(*command)
    assert found.exit_code == 2
    assert f"tried {no_cluster / 'none'} (KUBECONFIG)" in found.stderr
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(no_cluster))
    assert f"{no_cluster}/.kube/config (the default)" in rft(*command).stderr
