"""``rft serve`` with a real vLLM. The served adapter answers as the trained policy.

After Ctrl-C no process and no temporary file is left.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rft_api.status import Plan
from rft_run.folder import RunFolder
from rft_trainer.runtime import machine
from tests.ports import free_port
from tests.trainer.greedy_support import greedy, printed_request, served
from tests.trainer.loop_support import config, run, with_spec
from tests.trainer.vllm_support import sampler_processes
from tests.waiting import wait_until

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def trained(character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """Return the folder of a float32 run. The run's adapter changes greedy completions."""
    # Such a small model is slower with several threads.
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    asked = with_spec(
        config(character_model, tmp_path / "run", cpuDtype="float32"),
        evaluation={"fraction": 0},
        stop={"maxSteps": 1},
    ).model_copy(update={"plan": Plan(device="cpu", dtype="float32")})
    run(asked)
    folder = RunFolder(tmp_path / "run")
    folder.config.write_text(json.dumps(asked.dump()))
    # One step moves the policy too little to change the most probable tokens.
    file = folder.adapter / "adapter_model.safetensors"
    torch.manual_seed(0)
    moved = {
        name: torch.randn_like(weight) if "lora_B" in name else weight
        for name, weight in load_file(file).items()
    }
    save_file(moved, file, metadata={"format": "pt"})
    return folder


@contextmanager
def serving(folder: Path, port: int, temporary: Path, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """During the ``with`` block, run ``rft serve`` in a process of its own."""
    sources = os.pathsep.join([str(ROOT / "operator"), str(ROOT / "trainer-image")])
    environment = os.environ | {"PYTHONPATH": sources, "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "rft_cli.main", "serve", str(folder), "--port", str(port)]
    with log.open("wb") as written:
        process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def when_ready(process: "subprocess.Popen[bytes]", log: Path) -> tuple[str, dict[str, Any]]:
    """Wait until ``rft serve`` prints a ``curl`` command: then the server answers.

    Return the address and the body of the command's request.
    """

    def found() -> tuple[str, dict[str, Any]] | None:
        text = log.read_text()
        assert process.poll() is None, text
        return printed_request(text.splitlines())

    return wait_until("the request is printed", found, 500)


def test_the_served_adapter_answers_as_the_trained_policy_and_ctrl_c_leaves_nothing(
    character_model: Path, trained: RunFolder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(character_model)
    base: Any = AutoModelForCausalLM.from_pretrained(character_model, dtype=torch.float32)
    expected = {str(character_model): greedy(base, tokenizer)}
    expected["tiny"] = greedy(PeftModel.from_pretrained(base, str(trained.adapter)), tokenizer)
    assert all(one != other for one, other in zip(*expected.values(), strict=True))

    # A short path: a socket's path has at most 107 bytes.
    temporary, log = tmp_path_factory.mktemp("tmp"), trained.path / "serve.log"
    with serving(trained.path, free_port(), temporary, log) as process:
        address, body = when_ready(process, log)
        assert body["model"] == "tiny"
        said = {name: served(address, {**body, "model": name}) for name in expected}
        assert said == expected
        assert sampler_processes(trained.adapter)
        assert list(temporary.iterdir())

        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert not sampler_processes(trained.adapter)
        assert list(temporary.iterdir()) == []
