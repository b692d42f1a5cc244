"""Measures how much time the endpoint of rollouts adds to a turn, and the memory of an open rollout.

A stand-in for the sampler answers each batch after a fixed time. Prompts have about 2,000 tokens. When a
rollout gets an answer, it sends its next request at once. `make bench-gateway` prints one line of JSON.
"""

import argparse
import asyncio
import json
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from rft_trainer.rollout.engine import Generated, Request, SamplingParameters
from rft_trainer.rollout.gateway.dialogue import Dialogue
from rft_trainer.rollout.gateway.sampler import BatchSampler
from rft_trainer.rollout.gateway.server import Gateway
from rft_trainer.rollout.gateway.session import RolloutLimits, Session

END = 3
"""Token id of the character that ends a message."""


class Letters:
    """A tokenizer with one token for each character. The character END ends a message."""

    chat_template = ""

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> Any:
        """Return a conversation as text, or as token ids."""
        text = "".join(f"{m['role']}: {m['content']}{chr(END)}" for m in conversation) + "assistant: "
        return self.encode(text) if options["tokenize"] else text

    def encode(self, text: str, **_: Any) -> list[int]:
        """Return the token ids of a text."""
        return [ord(character) for character in text]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        return "".join(map(chr, token_ids))


async def _rollout(
    client: httpx.AsyncClient, name: str, token: str, turns: int, prompt: str, seconds: float
) -> list[float]:
    """Play a rollout of ``turns`` turns. Return the seconds of each turn, without the time of the sampler."""
    added = []
    headers = {"Authorization": f"Bearer {token}"}
    messages = [{"role": "user", "content": prompt}]
    for _ in range(turns):
        started = time.monotonic()
        url = f"http://gateway/rollouts/{name}/v1/chat/completions"
        answer = await client.post(url, json={"model": "policy", "messages": messages}, headers=headers)
        added.append(time.monotonic() - started - seconds)
        messages += [answer.json()["choices"][0]["message"], {"role": "user", "content": "go on"}]
    return added


def measured(rollouts: int, turns: int, seconds: float, per_second: float, prompt: int) -> dict[str, Any]:
    """Measure rollouts, and return the numbers that are printed.

    They are, for example, the milliseconds that the gateway adds to a turn, and the KiB of memory per open
    rollout.

    - ``rollouts``: the number of rollouts.
    - ``turns``: the number of turns of each rollout.
    - ``seconds``: how long the stand-in for the sampler takes for a batch.
    - ``per_second``: the number of rollouts that start in each second.
    - ``prompt``: the length of the first prompt in characters. Each character is one token.
    """
    tokenizer = Letters()
    dialogue = Dialogue(tokenizer, None, frozenset({END}), vocabulary=sys.maxunicode + 1)
    parameters = SamplingParameters(1.0, 1.0, 0, 64)

    def generate(requests: Sequence[Request]) -> list[Generated]:
        time.sleep(seconds)
        ids = (*tokenizer.encode("an answer"), END)
        return [Generated(ids, (-1.0,) * len(ids), "an answer", "stop") for _ in requests]

    async def all_rollouts() -> list[float]:
        # One client for all, because to make a client takes longer than a turn of the gateway.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        transport = httpx.AsyncHTTPTransport(uds=str(gateway_socket), limits=limits)
        async with httpx.AsyncClient(transport=transport, timeout=600, trust_env=False) as client:

            async def later(number: int) -> list[float]:
                await asyncio.sleep(number / per_second)
                name = f"r{number}"
                return await _rollout(client, name, tokens[name], turns, "x" * prompt, seconds)

            found = await asyncio.gather(*(later(number) for number in range(rollouts)))
        return [value for values in found for value in values]

    with tempfile.TemporaryDirectory() as folder:
        gateway_socket = Path(folder, "gateway.sock")
        sampler = BatchSampler(generate, batches=rollouts)
        with Gateway(gateway_socket, sampler, tokenizer.decode) as gateway:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            limits = RolloutLimits(turns, 10**6, 10**6, 3600.0)
            tokens = {
                name: gateway.open_rollout(name, Session(dialogue, parameters, limits, number))
                for number, name in enumerate(f"r{number}" for number in range(rollouts))
            }
            cpu, started = time.process_time(), time.monotonic()
            added = sorted(asyncio.run(all_rollouts()))
            wall, cpu = time.monotonic() - started, time.process_time() - cpu
            memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / rollouts
        sampler.close()
    cuts = statistics.quantiles(added, n=100)
    return {
        "rollouts": rollouts,
        "turns": len(added),
        "turnsPerSecond": round(len(added) / wall, 1),
        "addedMillisecondsP50": round(1000 * cuts[49], 2),
        "addedMillisecondsP99": round(1000 * cuts[98], 2),
        "cpuMillisecondsPerTurn": round(1000 * cpu / len(added), 2),
        "kibibytesPerRollout": round(memory, 1),
        "python": platform.python_version(),
    }


def main() -> None:
    """Measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=128, help="open rollouts")
    parser.add_argument("--turns", type=int, default=5, help="turns of each rollout")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="seconds that the sampler needs for a turn"
    )
    parser.add_argument(
        "--per-second", type=float, default=64.0, help="number of rollouts that begin in each second"
    )
    parser.add_argument("--prompt", type=int, default=2000, help="tokens of the first prompt")
    given = parser.parse_args()
    print(json.dumps(measured(given.rollouts, given.turns, given.seconds, given.per_second, given.prompt)))


if __name__ == "__main__":
    main()
