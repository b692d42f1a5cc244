"""The tuned parameters: training and sampling, with the documented ranges and defaults."""

from typing import Annotated, Literal

from pydantic import Field

from rft_api.base import Int, Model

Objective = Literal["grpo", "dapo", "gspo", "drGrpo", "cispo"]
LossAggregation = Literal["token", "sequence", "maxTokens"]
Dtype = Literal["float32", "bfloat16"]


class Training(Model):
    """The parameters of training: how the model learns."""

    learning_rate: float = Field(
        1e-4,
        ge=1e-5,
        le=5e-4,
        description="Step size of AdamW. Too high: reward spikes, then collapses. Too low: early plateau.",
    )
    epochs: Int = Field(1, ge=1, le=10, description="Complete passes through the training rows.")
    lora_rank: Literal[4, 8, 16, 32] = Field(
        8, description="Rank of the LoRA adapter: its capacity, and with the model's size the GPUs needed."
    )
    lora_alpha: Int = Field(
        32,
        ge=1,
        le=256,
        description="LoRA scale numerator; if constant, the best learning rate stays similar at every rank.",
    )
    lora_targets: Literal["all-linear", "attention"] = Field(
        "all-linear",
        description=(
            "Which layers get an adapter: every linear layer of the text model, or those of the attention."
            " Of a mixture of experts, and of GLM-4, it is always the attention."
        ),
    )
    batch_size_tokens: Int = Field(
        32768,
        ge=1024,
        description="Prompt plus completion tokens per step, whose rollouts are one batch; not sequences.",
    )
    max_context_length: Int | None = Field(
        None,
        ge=32,
        description=(
            "Longest prompt plus completion, in tokens."
            " If absent: min(the model's, batchSizeTokens, max(4096, 2 × maxTokens))."
        ),
    )
    updates_per_batch: Int = Field(
        1,
        ge=1,
        le=4,
        description=(
            "Optimizer steps per batch, each on its share of the prompts. With 1 the policy has not moved"
            " when its gradient is taken: the ratio is 1, and nothing is clipped."
        ),
    )
    objective: Objective = Field(
        "grpo",
        description=(
            "Policy-gradient objective. With updatesPerBatch 1, grpo, dapo and cispo differ by their defaults"
            " alone."
        ),
    )
    clip_low: float | None = Field(
        None,
        ge=0,
        lt=1,
        description=(
            "Lower clip distance of the ratio; derived from objective if absent. No effect with"
            " updatesPerBatch 1."
        ),
    )
    clip_high: float | None = Field(
        None,
        ge=0,
        le=10,
        description=(
            "Upper clip distance of the ratio; derived from objective if absent. No effect with"
            " updatesPerBatch 1."
        ),
    )
    kl_beta: float | None = Field(
        None,
        ge=0,
        le=1,
        description=(
            "Weight of the KL term, an estimate that topK, topP and updatesPerBatch bias; derived from"
            " objective if absent."
        ),
    )
    loss_aggregation: LossAggregation | None = Field(
        None, description="What the summed token loss is divided by; derived from objective if absent."
    )
    warmup_steps: Int = Field(0, ge=0, description="Steps over which the learning rate rises from 0.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="Learning rate after the warm-up."
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's decoupled weight decay.")
    max_grad_norm: float = Field(
        1.0, gt=0, description="Gradient norm above which gradients are scaled down."
    )
    seed: Int | None = Field(
        None, ge=0, le=2147483647, description="Seed of everything random; a hash of the UID if absent."
    )
    max_staleness: Int = Field(
        1,
        ge=0,
        le=4,
        description="Adapter versions by which generation may lag behind training; 0: never, above 1 as 1.",
    )
    stale_token_low: float = Field(
        0.5,
        ge=0,
        le=1,
        description=(
            "In a batch sampled by older weights: least weight of a token, its probability in the trainer"
            " over that in the sampler. A lower one is raised to it."
        ),
    )
    stale_token_high: float = Field(
        2.0,
        ge=1,
        le=100,
        description=(
            "In a batch sampled by older weights: highest weight of a token, see staleTokenLow. In other"
            " batches it is 2."
        ),
    )
    stale_sequence_low: float = Field(
        0.1,
        ge=0,
        le=1,
        description=(
            "In a batch sampled by older weights: a completion whose weights have a lower geometric mean than"
            " this has no policy gradient."
        ),
    )
    stale_sequence_high: float = Field(
        10.0,
        ge=1,
        le=1000,
        description=(
            "In a batch sampled by older weights: a completion whose weights have a higher geometric mean"
            " than this has no policy gradient."
        ),
    )
    deterministic: bool = Field(
        False,
        description="Repeatable on the same machine and versions: no overlap, and float32 on the CPU.",
    )
    cpu_dtype: Dtype | None = Field(
        None,
        description=(
            "Type of the base's weights in a run on the CPU. If absent: float32, but in rft run without"
            " deterministic what the machine is fast in. On GPUs it is always bfloat16."
        ),
    )
    mask_truncated: bool = Field(False, description="Leave completions cut at maxTokens out of the loss.")
    overlong_penalty: float | None = Field(
        None,
        ge=0,
        le=1,
        description=(
            "Taken from the reward of a completion of maxTokens before it is compared; rises from 0 over the"
            " last fifth of that length. 0: none; derived from objective if absent."
        ),
    )
    refill_rounds: Int | None = Field(
        None,
        ge=0,
        le=10,
        description=(
            "Times per step that groups with equal rewards are replaced by the epoch's next rows. Those that"
            " remain are not trained on. 0: none; derived from objective if absent."
        ),
    )


class Sampling(Model):
    """The parameters of sampling: how rollouts are generated."""

    temperature: float = Field(
        0.7, ge=0.1, le=2.0, description="Randomness of sampling; 0.5 to 1.0 is the usual range."
    )
    top_p: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Nucleus sampling: keep the most probable tokens up to this mass; 0 keeps one token.",
    )
    top_k: Int = Field(
        40, ge=0, le=100, description="Keep the k most probable tokens; 0 turns it off. Keep at most 50."
    )
    num_rollouts: Int = Field(4, ge=2, le=8, description="Completions per prompt, compared with each other.")
    max_tokens: Int = Field(2048, ge=16, le=16384, description="Longest completion, in tokens.")
    stop: list[Annotated[str, Field(min_length=1)]] | None = Field(
        None,
        max_length=4,
        description="Texts that end a completion when they appear; vLLM takes at most 4.",
    )
    engine: Literal["vllm", "transformers"] = Field("vllm", description="What generates the rollouts.")
