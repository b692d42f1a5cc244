"""``python -m rft_trainer.export``: merges a LoRA adapter into its base model.

    python -m rft_trainer.export --base NAME [--revision REV] --adapter DIR --output DIR [--dtype float32]

The merged model can be loaded without PEFT. ``rft export --merge`` runs this module. The files are not
written atomically: ``rft export`` renames the output folder when it is complete.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from rft_run.errors import ModelError, first_line
from rft_trainer.runtime.models import resolve


def merge(base: Path, adapter: Path, output: Path, dtype: str = "auto") -> None:
    """Merge a LoRA adapter into its base model, and write weights, configuration and tokenizer to ``output``.

    ``dtype`` is the dtype of the merged weights. "auto": the dtype of the base model. In float32 the merged
    model has the same logits as base model plus adapter. In a 16-bit dtype the merged weights are rounded, so
    the logits differ a little.

    Raises ModelError if the base or the adapter cannot be loaded, or if they do not fit together.
    """
    from transformers import AutoModelForCausalLM

    from rft_trainer.runtime.loading import load_adapter, load_tokenizer, refuse_pickles

    kind: Any = AutoModelForCausalLM
    try:
        refuse_pickles(base)
        loaded = kind.from_pretrained(base, dtype=dtype, use_safetensors=True, trust_remote_code=False)
        model: Any = load_adapter(loaded, adapter)
        # safe_merge raises an error if the adapter's weights contain NaN. Otherwise the merged model would
        # contain NaN too.
        merged = model.merge_and_unload(safe_merge=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"{adapter}: does not fit the base {base}: {first_line(error)}") from error
    merged.save_pretrained(output)
    load_tokenizer(base).save_pretrained(output)


def main(argv: list[str] | None = None) -> int:
    """Merge the adapter that the command line names. Return the exit status: 0, or 1 after a printed error.

    ``argv``: the arguments. None: those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m rft_trainer.export")
    parser.add_argument("--base", required=True, help="folder or hub id")
    parser.add_argument("--revision")
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--dtype", choices=("auto", "float32"), default="auto")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        base = resolve(arguments.base, arguments.revision)
        merge(base, arguments.adapter, arguments.output, arguments.dtype)
    except (ModelError, OSError) as error:
        print(first_line(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
