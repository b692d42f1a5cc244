"""The second sampler of rollouts, besides vLLM: generation with ``transformers`` in the trainer's process.

It is for unit tests, machines without vLLM, and CPUs on which vLLM's kernels are slow. It has no continuous
batching: a finished completion leaves its batch, but the next batch starts only when the whole batch is
finished. Each request has its own seed. So the results do not depend on the batches, apart from rounding.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rft_run.errors import Preempted, SamplerError
from rft_trainer.rollout.engine import (
    BASE_NAME,
    AdapterVersion,
    ConnectionLost,
    FinishReason,
    Generated,
    Request,
    SamplingParameters,
    unnoticed,
)
from rft_trainer.rollout.filter import Filter, filter_set

log = logging.getLogger(__name__)
_BATCH = 32


class TransformersEngine:
    """A sampler with its own copy of the model, in the trainer's process. It uses the library transformers.

    It loads adapters from their folders, and has one adapter at a time.
    """

    batches = adapters = 1
    concurrency = _BATCH

    def __init__(self, folder: Path, device: str, dtype: str, context: int | None = None) -> None:
        from rft_trainer.runtime.loading import load_base, load_tokenizer

        self.restarts = 0
        self._tokenizer: Any = load_tokenizer(folder)
        self._base: Any = load_base(folder, getattr(torch, dtype), context).to(device).eval()
        self._device = torch.device(device)
        self._model: Any = self._base
        self._adapter: AdapterVersion | None = None
        self._ends = end_tokens(self._tokenizer.eos_token_id, self._base.generation_config.eos_token_id)
        # On a CPU an output layer in bfloat16 takes a hundred times longer if its input is not contiguous.
        self._base.get_output_embeddings().register_forward_pre_hook(_contiguous)

    def wait_until_ready(self) -> None:
        """Return at once, because the model was loaded when this object was made."""

    def use_adapter(self, adapter: AdapterVersion | None, kept: Sequence[AdapterVersion] = ()) -> None:
        """Replace the loaded adapter by ``adapter``. None: sample from the base model alone.

        ``kept`` must be empty, because this sampler has one adapter at a time.
        """
        from rft_trainer.runtime.loading import load_adapter

        assert not kept, "this engine has one adapter at a time"
        if self._adapter is not None:
            self._base = self._model.unload()
            self._model = self._base
        if adapter is not None:
            self._model = load_adapter(self._base, adapter.path).eval()
        self._adapter = adapter

    def generate(
        self,
        requests: Sequence[Request],
        should_stop: Callable[[], bool] = lambda: False,
        answered: Callable[[], None] = unnoticed,
    ) -> list[Generated]:
        """Sample one completion for each request, and return them in the order of the requests.

        ``answered`` is called once for each completion. Raises Preempted if ``should_stop`` returns True.
        """
        done: dict[int, Generated] = {}
        self.attempt(dict(enumerate(requests)), done, should_stop, answered)
        return [done[index] for index in range(len(requests))]

    def attempt(
        self,
        requests: dict[int, Request],
        done: dict[int, Generated],
        should_stop: Callable[[], bool],
        answered: Callable[[], None] = unnoticed,
    ) -> None:
        """Sample a completion for each request, and put it into ``done`` under the key of its request.

        Requests are sorted, so that equal prompts are in the same batch. Raises SamplerError if a request
        names an adapter that is not loaded.
        """
        current = self._adapter.name if self._adapter is not None else BASE_NAME
        others = {request.adapter for request in requests.values()} - {None, current}
        if others:
            raise SamplerError(f"adapter {sorted(map(str, others))[0]} is not loaded, only {current}")
        order = sorted(requests, key=lambda key: _by_prompt(requests[key]))
        for start in range(0, len(order), _BATCH):
            chunk = order[start : start + _BATCH]
            done |= zip(chunk, self._batch([requests[key] for key in chunk], should_stop), strict=True)
            for _ in chunk:
                answered()

    def recover(self, cause: ConnectionLost) -> None:
        """Count and log the error ``cause``. Nothing is restarted: this sampler has no process of its own."""
        log.warning("sampling continues after an error: %s", cause)
        self.restarts += 1

    @torch.no_grad()
    def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """Return the log-prob in nats of each token of a text except the first, with the current adapter."""
        tokens_1_T = torch.tensor([list(token_ids)], device=self._device)
        logits_t_V = self._model(input_ids=tokens_1_T, use_cache=False).logits[0, :-1].float()
        found_t = logits_t_V.log_softmax(1).gather(1, tokens_1_T[0, 1:, None]).squeeze(1)
        return list(found_t.tolist())

    @torch.no_grad()
    def _batch(self, requests: list[Request], should_stop: Callable[[], bool]) -> list[Generated]:
        """Sample the completions of a batch of requests, with a KV cache. Return them in order.

        Finished completions are removed from the batch, so that they cost no more time. Raises Preempted if
        ``should_stop`` returns True.
        """
        states = [_Growing(request, self._ends, self._tokenizer) for request in requests]
        batch, logits_B_V = self._prefill(requests)
        while True:
            if should_stop():
                raise Preempted("asked to stop while sampling")
            growing = [states[row] for row in batch.rows]
            for state, (token, logprob) in zip(growing, draw_all(logits_B_V, growing), strict=True):
                state.add(token, logprob)
            left = [place for place, state in enumerate(growing) if state.finish is None]
            if not left:
                return [state.finished() for state in states]
            if len(left) < len(growing):
                batch = batch.only(left)
            logits_B_V = self._decode(batch, [states[row].last for row in batch.rows])

    def _prefill(self, requests: list[Request]) -> tuple["_Batch", Tensor]:
        """Compute the KV cache of the prompts. A prompt of several requests is computed once.

        Prompts are padded on the left.
        Returns the batch of all B requests, and the logits (B, V) of the first token of each completion.
        """
        prompts = list(dict.fromkeys(request.prompt_token_ids for request in requests))
        width = max(map(len, prompts))
        tokens_P_T = torch.zeros((len(prompts), width), dtype=torch.long)
        mask_P_T = torch.zeros((len(prompts), width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens_P_T[row, width - len(prompt) :] = torch.tensor(prompt)
            mask_P_T[row, width - len(prompt) :] = 1
        tokens_P_T, mask_P_T = tokens_P_T.to(self._device), mask_P_T.to(self._device)
        positions_P_T = (mask_P_T.cumsum(1) - 1).clamp(min=0)
        output = self._forward(tokens_P_T, mask_P_T, positions_P_T, None)
        prompt_of = [prompts.index(request.prompt_token_ids) for request in requests]
        shared = _Batch(list(range(len(prompts))), output.past_key_values, mask_P_T, positions_P_T[:, -1:])
        batch = replace(shared.only(prompt_of), rows=list(range(len(requests))))
        return batch, output.logits[prompt_of, -1]

    def _decode(self, batch: "_Batch", tokens: list[int]) -> Tensor:
        """Append one token to each of the B completions of the batch.

        Return the logits (B, V) of the next token, over the V tokens of the vocabulary.
        """
        tokens_B_1 = torch.tensor(tokens, device=self._device)[:, None]
        batch.mask_B_T = torch.cat([batch.mask_B_T, torch.ones_like(tokens_B_1)], dim=1)
        batch.position_B_1 = batch.position_B_1 + 1
        output = self._forward(tokens_B_1, batch.mask_B_T, batch.position_B_1, batch.cache)
        batch.cache = output.past_key_values
        logits_B_V: Tensor = output.logits[:, -1]
        return logits_B_V

    def _forward(self, tokens_B_T: Tensor, mask_B_T: Tensor, positions_B_T: Tensor, cache: Any) -> Any:
        return self._model(
            input_ids=tokens_B_T,
            attention_mask=mask_B_T,
            position_ids=positions_B_T,
            past_key_values=cache,
            use_cache=True,
            # A tensor index copies the last positions. With a slice, a view, the output layer would be
            # applied row by row, in bfloat16 with a copy of its weights each time: 0.4 GB for 8 prompts.
            logits_to_keep=torch.tensor([-1], device=self._device),
        )

    def close(self) -> None:
        """Do nothing, because this sampler has no process or connection to close."""


def end_tokens(*told: int | Sequence[int] | None) -> set[int]:
    """Return the ids of all tokens that end a completion.

    ``told``: the end tokens of the tokenizer, and of the model's generation configuration. None: it has none.
    """
    return {token for one in told for token in ([one] if isinstance(one, int) else one or ())}


def _contiguous(_layer: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value.contiguous() for value in inputs)


def _by_prompt(request: Request) -> tuple[int, tuple[int, ...]]:
    return len(request.prompt_token_ids), request.prompt_token_ids


@dataclass
class _Batch:
    """Completions that are decoded together.

    - ``rows``: the index of the request of each completion.
    - ``cache``: the KV cache of the tokens so far.
    - ``mask_B_T``: the attention mask: 1 for a token, 0 for padding on the left.
    - ``position_B_1``: the position of each completion's newest token.
    """

    rows: list[int]
    cache: Any
    mask_B_T: Tensor
    position_B_1: Tensor

    def only(self, places: list[int]) -> "_Batch":
        """Return a new batch with some of the completions of this batch.

        ``places``: the indices of these completions in this batch. An index may occur several times. Do not
        use the old batch afterwards, because its KV cache is changed in place.
        """
        index = torch.tensor(places, device=self.mask_B_T.device)
        self.cache.reorder_cache(index)
        rows = [self.rows[place] for place in places]
        return _Batch(rows, self.cache, self.mask_B_T[index], self.position_B_1[index])


class _Growing:
    """A completion that is being sampled: its tokens and log-probs so far, and its random generator.

    ``finish``: why the completion has ended. None: it has not ended.
    """

    def __init__(self, request: Request, ends: set[int], tokenizer: Any) -> None:
        self.parameters = request.parameters.effective()
        self.generator = torch.Generator().manual_seed(request.seed)
        self.finish: FinishReason | None = None
        self._ends, self._tokenizer = ends, tokenizer
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._stopped_text: str | None = None

    @property
    def last(self) -> int:
        """The id of the token that was appended last."""
        return self._tokens[-1]

    def add(self, token: int, logprob: float) -> None:
        """Append a token and its log-prob in nats. Set ``finish`` if this token ends the completion."""
        self._tokens.append(token)
        self._logprobs.append(logprob)
        if self._stops() or token in self._ends or token in self.parameters.stop_token_ids:
            self.finish = "stop"
        elif len(self._tokens) >= self.parameters.max_tokens:
            self.finish = "length"

    def _stops(self) -> bool:
        """Return whether the completion contains a stop text. If so, cut its text before the stop text."""
        if not self.parameters.stop:
            return False
        text = self._text()
        found = [at for stop in self.parameters.stop if (at := text.find(stop)) >= 0]
        if found:
            self._stopped_text = text[: min(found)]
        return bool(found)

    def _text(self) -> str:
        return str(self._tokenizer.decode(self._tokens, skip_special_tokens=True))

    def finished(self) -> Generated:
        """Return the result: token ids, log-probs, text and the reason of the end."""
        text = self._stopped_text if self._stopped_text is not None else self._text()
        return Generated(tuple(self._tokens), tuple(self._logprobs), text, self.finish or "length")


def draw_all(logits_B_V: Tensor, growing: Sequence[_Growing]) -> list[tuple[int, float]]:
    """Sample the next token of each of B completions. Return each token id and its log-prob in nats.

    ``logits_B_V``: the logits over the V tokens of the vocabulary. ``growing``: the unfinished completions.
    Each has its own sampling parameters and random generator.
    """
    drawn: dict[int, tuple[int, float]] = {}
    for parameters in dict.fromkeys(state.parameters for state in growing):
        rows = [row for row, state in enumerate(growing) if state.parameters == parameters]
        logits_b_V = logits_B_V if len(rows) == len(growing) else logits_B_V[rows]
        generators = [growing[row].generator for row in rows]
        drawn |= zip(rows, draw(logits_b_V, parameters, generators), strict=True)
    return [drawn[row] for row in range(len(growing))]


def draw(
    logits_B_V: Tensor, parameters: SamplingParameters, generators: Sequence[torch.Generator]
) -> list[tuple[int, float]]:
    """Sample one token from each of B rows of logits. Return each token id and its log-prob in nats.

    Each row has its own random generator. The log-prob is computed after temperature, top-k and top-p. With
    greedy decoding these are off.
    """
    if parameters.greedy:
        tokens_B = logits_B_V.argmax(1)
        logprobs_B = logits_B_V.float().log_softmax(1).gather(1, tokens_B[:, None]).squeeze(1)
        return list(zip(tokens_B.tolist(), logprobs_B.tolist(), strict=True))
    settings = Filter(parameters.temperature, parameters.top_k, parameters.top_p)
    scaled_B_V = logits_B_V.float() / parameters.temperature
    index_B_K, kept_B_K = filter_set(scaled_B_V, settings)
    values_B_K = scaled_B_V.gather(1, index_B_K).masked_fill(~kept_B_K, -torch.inf)
    # The generators are on the CPU, so that the same logits give the same tokens on any device.
    logprobs_B_K, index_B_K = values_B_K.log_softmax(1).cpu(), index_B_K.cpu()
    drawn = []
    for logprobs_K, index_K, generator in zip(logprobs_B_K, index_B_K, generators, strict=True):
        choice = int(torch.multinomial(logprobs_K.exp(), 1, generator=generator))
        drawn.append((int(index_K[choice]), float(logprobs_K[choice])))
    return drawn
