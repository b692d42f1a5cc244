"""The program that ``bench/reward.py`` runs for TRL. It prints a JSON line for each evaluation.

Like ``train.py`` it has its own Python environment, without this project. It also reads its case from a JSON
file. If ``equal`` is set in the case, GRPOTrainer gets the same arguments as in ``train.py``. Otherwise it
gets TRL's own defaults.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from train import adapter_of, arguments, grader_of, rows_of
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

BATCH = 32
MOST_STEPS = 10_000


class HeldOut(TrainerCallback):
    """Sums the seconds of the steps, and evaluates the model after every few steps.

    Stops the training when the model reaches the reward, or after the time limit.
    """

    trainer: GRPOTrainer

    def __init__(self, case: dict[str, Any], tokenizer: Any, grade: Any) -> None:
        self._case, self._tokenizer, self._grade = case, tokenizer, grade
        self._seconds = 0.0
        self._started = time.monotonic()

    def on_train_begin(self, _arguments: Any, _state: Any, control: Any, **_named: Any) -> None:
        """Evaluate the base model."""
        self._evaluate(0, control)

    def on_step_begin(self, *_arguments: Any, **_named: Any) -> None:
        """Store the time at which the step begins."""
        self._began = time.monotonic()

    def on_step_end(self, _arguments: Any, state: Any, control: Any, **_named: Any) -> None:
        """Add the step's seconds to the sum. Evaluate the model if the case says so for this step."""
        self._seconds += time.monotonic() - self._began
        if state.global_step % self._case["everySteps"] == 0:
            self._evaluate(state.global_step, control)

    def _evaluate(self, step: int, control: Any) -> None:
        rows = self._case["heldOut"]
        texts: list[str] = []
        model = self.trainer.model
        trains = model.training
        model.eval()
        for start in range(0, len(rows), BATCH):
            prompts = [
                self._tokenizer.apply_chat_template(
                    row["messages"], add_generation_prompt=True, tokenize=False
                )
                for row in rows[start : start + BATCH]
            ]
            inputs = self._tokenizer(
                prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
            )
            with torch.no_grad():
                found = model.generate(
                    **inputs, max_new_tokens=self._case["maxTokens"], do_sample=False, use_cache=True
                )
            new = found[:, inputs["input_ids"].shape[1] :]
            texts += self._tokenizer.batch_decode(new, skip_special_tokens=True)
        model.train(trains)
        completions = [[{"role": "assistant", "content": text}] for text in texts]
        scores = self._grade(None, completions, [row["answer"] for row in rows])
        reward = sum(scores) / len(scores)
        line = {"event": "step", "step": step, "seconds": self._seconds, "heldOut": reward}
        print(json.dumps(line), flush=True)
        late = time.monotonic() - self._started > 60 * self._case["minutes"]
        control.should_training_stop = control.should_training_stop or late or reward >= self._case["target"]


def settings(case: dict[str, Any], folder: Path) -> GRPOConfig:
    """Return GRPOTrainer's arguments: the settings in ``equal`` if they are given, else TRL's defaults.

    With TRL's defaults, only the arguments that the benchmark needs are set.
    """
    if case["equal"] is not None:
        return arguments({**case, **case["equal"], "steps": MOST_STEPS}, folder)
    return GRPOConfig(
        output_dir=str(folder), use_cpu=True, bf16=case["dtype"] == "bfloat16", seed=case["seed"],
        max_completion_length=case["maxTokens"], save_strategy="no", eval_strategy="no",
        logging_strategy="no", report_to="none", disable_tqdm=True, max_steps=MOST_STEPS,
    )  # fmt: skip


def main() -> None:
    """Train the case in the file that the first command-line argument names."""
    case = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(case["threads"])
    grade = grader_of(case)
    tokenizer = AutoTokenizer.from_pretrained(case["model"])
    held_out = HeldOut(case, tokenizer, grade)
    equal = case["equal"]
    dtype = getattr(torch, case["dtype"]) if equal else torch.float32  # all weights are trained
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(case["model"], dtype=dtype),
        reward_funcs=grade,
        args=settings(case, Path(sys.argv[1]).parent / "trl"),
        train_dataset=rows_of(case),
        processing_class=tokenizer,
        callbacks=[held_out],
        peft_config=adapter_of(equal) if equal else None,
    )
    held_out.trainer = trainer
    trainer.train()


if __name__ == "__main__":
    main()
