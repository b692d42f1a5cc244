"""`make gpu-image` compares the options that the trainer gives to vLLM with the settings that vLLM uses."""

import dataclasses
from types import SimpleNamespace

import pytest

from tests.gpu_image.__main__ import differences
from tests.gpu_image.lines import arguments, server_options
from tests.gpu_image.stub import source

FIRST = next(server_options())


def taken(**changes: object) -> SimpleNamespace:
    """Return settings like those of a vLLM engine that was started with the options ``FIRST``.

    ``changes`` replace some of the settings.
    """
    same = {
        "model": str(FIRST.model),
        "dtype": FIRST.dtype,
        "max_model_len": FIRST.context_length,
        "tensor_parallel_size": FIRST.tensor_parallel,
        "gpu_memory_utilization": FIRST.gpu_memory_share,
        "kv_cache_memory_bytes": FIRST.kv_cache_bytes,
        "enable_lora": True,
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
        "enable_prefix_caching": None,
    }
    return SimpleNamespace(**same | changes)


def test_settings_that_were_taken_as_meant_are_no_fault() -> None:
    assert differences(FIRST, taken()) == {}


@pytest.mark.parametrize(
    ("name", "value"), [("dtype", "auto"), ("max_model_len", None), ("logprobs_mode", "raw_logprobs")]
)
def test_a_setting_that_became_another_is_named_with_both_values(name: str, value: object) -> None:
    [(found, (_, became))] = differences(FIRST, taken(**{name: value})).items()
    assert (found, became) == (name, value)


def test_the_command_lines_differ_where_the_options_do() -> None:
    options = list(server_options())
    lines = {tuple(arguments(each)) for each in options}
    assert len(lines) == len(options) == len(set(options)) > 1000
    own = [line for line in lines if "--kv-cache-memory-bytes" not in line]
    assert len(own) == len(lines) / 2, "half of the samplers have a GPU of their own, half share one"
    deterministic = dataclasses.replace(FIRST, deterministic=True)
    assert "--no-enable-prefix-caching" in arguments(deterministic)


def test_the_stub_has_each_function_once_and_says_that_there_is_no_device() -> None:
    assert source(["cuInit", "cuCtxGetCurrent"]) == (
        "int cuCtxGetCurrent(void) { return 100; }\nint cuInit(void) { return 100; }\n"
    )
