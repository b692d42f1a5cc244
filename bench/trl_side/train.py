"""The program that ``bench/trainer.py`` runs to measure TRL. It runs one GRPOTrainer, and prints one JSON
line for each step.

It reads the case from a JSON file. It has its own Python environment, without this project. TRL's trainer is
not changed, except that its time is measured.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Timed(GRPOTrainer):
    """Sums the seconds of sampling and of grading in a step, and records the completions' lengths."""

    seconds: dict[str, float]
    sampled: dict[str, list[int]]

    def reset(self) -> None:
        """Set the measured seconds to 0, and forget the recorded lengths, at the start of a step."""
        self.seconds = {"rollout": 0.0, "grade": 0.0}
        self.sampled = {"prompts": [], "completions": []}

    def _generate(self, prompts: list[Any]) -> Any:
        started = time.monotonic()
        found = super()._generate(prompts)
        self.seconds["rollout"] += time.monotonic() - started
        self.sampled["prompts"] += [len(ids) for ids in found[0]]
        self.sampled["completions"] += [len(ids) for ids in found[1]]
        return found

    def _calculate_rewards(self, *arguments: Any) -> Any:
        started = time.monotonic()
        found = super()._calculate_rewards(*arguments)
        self.seconds["grade"] += time.monotonic() - started
        return found


class Steps(TrainerCallback):
    """Prints the measurements of each step as a JSON line, at the end of the step."""

    trainer: Timed

    def on_step_begin(self, *_arguments: Any, **_named: Any) -> None:
        """Reset the step's measurements. TRL samples the batch later, in the step's first micro-batch."""
        self.trainer.reset()
        self._began = time.monotonic()

    def on_step_end(self, _arguments: Any, state: Any, _control: Any, **_named: Any) -> None:
        """Print the measurements of the step that has ended."""
        phases = self.trainer.seconds
        rest = time.monotonic() - self._began - sum(phases.values())
        line = {"event": "step", "step": state.global_step, "phases": phases | {"update": rest}}
        print(json.dumps(line | self.trainer.sampled), flush=True)


def arguments(case: dict[str, Any], folder: Path) -> GRPOConfig:
    """Return GRPOTrainer's arguments for the case. The comments name our trainer's settings."""
    return GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=case["dtype"] == "bfloat16",
        gradient_checkpointing=case["trlCheckpointing"],  # off, as in our trainer on the CPU
        per_device_train_batch_size=case["microBatch"],
        gradient_accumulation_steps=case["completions"] // case["microBatch"],
        num_generations=case["rollouts"],
        max_completion_length=case["maxTokens"],
        max_steps=case["steps"],
        shuffle_dataset=False,
        temperature=case["temperature"],
        top_k=case["topK"],
        top_p=1.0,
        loss_type="dapo",  # TRL's name for the sum over the batch's tokens, lossAggregation: token
        beta=case["klBeta"],
        use_bias_correction_kl=False,
        epsilon=0.2,
        scale_rewards="group",
        learning_rate=case["learningRate"],
        lr_scheduler_type="constant",
        weight_decay=0.01,
        max_grad_norm=1.0,
        optim="adamw_torch",
        seed=case["seed"],
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def grader_of(case: dict[str, Any]) -> Any:
    """Return the case's reward function, from its source code. Our trainer's runs use the same code."""
    space: dict[str, Any] = {}
    exec(compile(case["grader"], "grader", "exec"), space)  # noqa: S102  # the same source on both sides
    return space["grade"]


def rows_of(case: dict[str, Any]) -> Dataset:
    """Return the rows of the case as TRL reads them."""
    return Dataset.from_list([{"prompt": row["messages"], "answer": row["answer"]} for row in case["rows"]])


def adapter_of(settings: dict[str, Any]) -> LoraConfig:
    """Return the configuration of the adapter, with the rank and the alpha in ``settings``."""
    return LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def main() -> None:
    """Run GRPOTrainer with the settings in the JSON file that the first command-line argument names."""
    case = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(case["threads"])
    tokenizer = AutoTokenizer.from_pretrained(case["model"])
    steps = Steps()
    trainer = Timed(
        model=AutoModelForCausalLM.from_pretrained(case["model"], dtype=getattr(torch, case["dtype"])),
        reward_funcs=grader_of(case),
        args=arguments(case, Path(sys.argv[1]).parent / "trl"),
        train_dataset=rows_of(case),
        processing_class=tokenizer,
        callbacks=[steps],
        peft_config=adapter_of(case),
    )
    steps.trainer = trainer
    trainer.train()


if __name__ == "__main__":
    main()
