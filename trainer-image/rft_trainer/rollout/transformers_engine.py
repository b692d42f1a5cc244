"""The second engine: plain ``transformers`` generation in the trainer's process.

For unit tests and machines without vLLM. Slow: no continuous batching, and every batch waits for its
longest completion. Draws are seeded per request, so results do not depend on how requests are batched
beyond rounding.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rft_trainer.errors import Preempted
from rft_trainer.logprobs import Filter, filter_set
from rft_trainer.rollout.engine import (
    AdapterVersion,
    FinishReason,
    Generated,
    Request,
    SamplingParameters,
)

_BATCH = 32


class TransformersEngine:
    """A RolloutEngine with a model of its own; adapters are loaded from their folders as vLLM does."""

    def __init__(self, folder: Path, device: str, dtype: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.restarts = 0
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForCausalLM
        self._base: Any = model.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device).eval()
        self._device = torch.device(device)
        self._model: Any = self._base
        self._adapter: AdapterVersion | None = None
        eos = self._base.generation_config.eos_token_id
        self._ends = {eos} if isinstance(eos, int) else set(eos or ())

    def use_adapter(self, adapter: AdapterVersion | None) -> None:
        """See RolloutEngine."""
        from peft import PeftModel

        if self._adapter is not None:
            self._base = self._model.unload()
            self._model = self._base
        if adapter is not None:
            self._model = PeftModel.from_pretrained(self._base, str(adapter.path)).eval()
        self._adapter = adapter

    def generate(
        self, requests: Sequence[Request], should_stop: Callable[[], bool] = lambda: False
    ) -> list[Generated]:
        """See RolloutEngine. Requests with equal parameters are batched, shortest prompts first."""
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt_token_ids))
        done: dict[int, Generated] = {}
        for start in range(0, len(order), _BATCH):
            chunk = order[start : start + _BATCH]
            done |= zip(chunk, self._batch([requests[i] for i in chunk], should_stop), strict=True)
        return [done[index] for index in range(len(requests))]

    @torch.no_grad()
    def _batch(self, requests: list[Request], should_stop: Callable[[], bool]) -> list[Generated]:
        """Decode a batch token by token with a KV cache, left-padded."""
        width = max(len(request.prompt_token_ids) for request in requests)
        tokens_B_T = torch.zeros((len(requests), width), dtype=torch.long)
        mask_B_T = torch.zeros((len(requests), width), dtype=torch.long)
        for row, request in enumerate(requests):
            tokens_B_T[row, width - len(request.prompt_token_ids) :] = torch.tensor(request.prompt_token_ids)
            mask_B_T[row, width - len(request.prompt_token_ids) :] = 1
        tokens_B_T, mask_B_T = tokens_B_T.to(self._device), mask_B_T.to(self._device)
        positions_B_T = (mask_B_T.cumsum(1) - 1).clamp(min=0)
        draws = [torch.Generator().manual_seed(request.seed) for request in requests]
        states = [_Growing(request.parameters.effective()) for request in requests]
        cache = None
        while not all(state.finish for state in states):
            if should_stop():
                raise Preempted("asked to stop while sampling")
            output = self._model(
                input_ids=tokens_B_T,
                attention_mask=mask_B_T,
                position_ids=positions_B_T,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            logits_B_V = output.logits[:, -1].float().cpu()
            next_B = torch.zeros(len(requests), dtype=torch.long)
            for row, state in enumerate(states):
                if state.finish is None:
                    token, logprob = draw(logits_B_V[row], state.parameters, draws[row])
                    state.add(token, logprob, self._ends, self._tokenizer)
                    next_B[row] = token
            tokens_B_T = next_B[:, None].to(self._device)
            mask_B_T = torch.cat([mask_B_T, torch.ones_like(tokens_B_T)], dim=1)
            positions_B_T = positions_B_T[:, -1:] + 1
        return [state.finished() for state in states]

    def close(self) -> None:
        """See RolloutEngine."""


class _Growing:
    """A completion that is being sampled."""

    def __init__(self, parameters: SamplingParameters) -> None:
        self.parameters = parameters
        self.finish: FinishReason | None = None
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._text = ""

    def add(self, token: int, logprob: float, ends: set[int], tokenizer: Any) -> None:
        """Append a token and see whether it was the last."""
        self._tokens.append(token)
        self._logprobs.append(logprob)
        self._text = tokenizer.decode(self._tokens, skip_special_tokens=True)
        found = [at for text in self.parameters.stop if (at := self._text.find(text)) >= 0]
        if found:
            self._text = self._text[: min(found)]
        if found or token in ends:
            self.finish = "stop"
        elif len(self._tokens) >= self.parameters.max_tokens:
            self.finish = "length"

    def finished(self) -> Generated:
        """The whole completion."""
        reason = self.finish or "length"
        return Generated(tuple(self._tokens), tuple(self._logprobs), self._text, reason)


def draw(logits_V: Tensor, parameters: SamplingParameters, generator: torch.Generator) -> tuple[int, float]:
    """Draw one token; returns it with its log-prob under the processed distribution, in nats."""
    if parameters.greedy:
        token = int(logits_V.argmax())
        return token, float(logits_V.log_softmax(0)[token])
    settings = Filter(parameters.temperature, parameters.top_k, parameters.top_p)
    scaled_1_V = logits_V[None] / parameters.temperature
    index_1_K, kept_1_K = filter_set(scaled_1_V, settings)
    values_K = scaled_1_V.gather(1, index_1_K).masked_fill(~kept_1_K, -torch.inf)[0]
    logprobs_K = values_K.log_softmax(0)
    choice = int(torch.multinomial(logprobs_K.exp(), 1, generator=generator))
    return int(index_1_K[0, choice]), float(logprobs_K[choice])
