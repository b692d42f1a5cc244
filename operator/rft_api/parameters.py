"""The pydantic classes for the parameters of training and sampling, with their ranges and defaults."""

from typing import Annotated, Literal

from pydantic import Field

from rft_api.base import Int, Model

Objective = Literal["grpo", "dapo", "gspo", "drGrpo", "cispo"]
LossAggregation = Literal["token", "sequence", "maxTokens"]
Dtype = Literal["float32", "bfloat16"]


class Training(Model):
    """The parameters of training, such as learning rate, LoRA rank, batch size and objective."""

    learning_rate: float = Field(
        1e-4,
        ge=1e-5,
        le=5e-4,
        description=(
            "Learning rate of AdamW. If it is too high, the reward rises fast and then collapses. If it is"
            " too low, the reward stops rising early."
        ),
    )
    epochs: Int = Field(1, ge=1, le=10, description="Number of passes through the training rows.")
    lora_rank: Literal[4, 8, 16, 32] = Field(
        8,
        description=(
            "Rank of the LoRA adapter. A higher rank gives more capacity, and needs more GPU memory."
        ),
    )
    lora_alpha: Int = Field(
        32,
        ge=1,
        le=256,
        description=(
            "Sets the LoRA scale, which is loraAlpha divided by loraRank. With an equal loraAlpha, the best"
            " learning rate is similar at every rank."
        ),
    )
    lora_targets: Literal["all-linear", "attention"] = Field(
        "all-linear",
        description=(
            "Layers that get an adapter. all-linear: all linear layers of the text model. attention: only"
            " the linear layers of the attention. In a mixture of experts and in GLM-4, all-linear means the"
            " same as attention."
        ),
    )
    batch_size_tokens: Int = Field(
        32768,
        ge=1024,
        description=(
            "Size of a batch: the number of prompt and completion tokens in one training step. It is not a"
            " number of sequences."
        ),
    )
    max_context_length: Int | None = Field(
        None,
        ge=32,
        description=(
            "Maximum length of prompt plus completion, in tokens. If absent, it is the smallest of these:"
            " the longest context of the model, batchSizeTokens, and max(4096, 2 × maxTokens)."
        ),
    )
    updates_per_batch: Int = Field(
        1,
        ge=1,
        le=4,
        description=(
            "Number of optimizer steps per batch. Each optimizer step uses other prompts of the batch. With"
            " 1, the policy is unchanged when the gradient is computed. So the probability ratio is 1, and"
            " nothing is clipped."
        ),
    )
    objective: Objective = Field(
        "grpo",
        description=(
            "Policy-gradient objective. With updatesPerBatch 1, grpo, dapo and cispo differ only in their"
            " default parameters."
        ),
    )
    clip_low: float | None = Field(
        None,
        ge=0,
        lt=1,
        description=(
            "Lower clip distance of the probability ratio. If absent, it depends on objective. No effect"
            " with updatesPerBatch 1."
        ),
    )
    clip_high: float | None = Field(
        None,
        ge=0,
        le=10,
        description=(
            "Upper clip distance of the probability ratio. If absent, it depends on objective. No effect"
            " with updatesPerBatch 1."
        ),
    )
    kl_beta: float | None = Field(
        None,
        ge=0,
        le=1,
        description=(
            "Weight of the KL term. The KL is an estimate. topK, topP and updatesPerBatch add a bias to the"
            " estimate. If absent, the weight depends on objective."
        ),
    )
    loss_aggregation: LossAggregation | None = Field(
        None,
        description="What the sum of the token losses is divided by. If absent, it depends on objective.",
    )
    warmup_steps: Int = Field(
        0, ge=0, description="Number of training steps in which the learning rate rises from 0."
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="Schedule of the learning rate after the warm-up."
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="Decoupled weight decay of AdamW.")
    max_grad_norm: float = Field(
        1.0, gt=0, description="Maximum norm of the gradient. A larger gradient is scaled down to it."
    )
    seed: Int | None = Field(
        None,
        ge=0,
        le=2147483647,
        description="Seed of all random generators. If absent, it is a hash of the job's UID.",
    )
    max_staleness: Int = Field(
        1,
        ge=0,
        le=4,
        description=(
            "Maximum number of versions by which the sampler's adapter may be older than the trainer's"
            " adapter. If sampling and training have separate GPUs, this number of batches is sampled in"
            " advance. With 2 or more, several batches are sampled at the same time. With 0, sampling and"
            " training never overlap."
        ),
    )
    stale_token_low: float = Field(
        0.5,
        ge=0,
        le=1,
        description=(
            "Minimum weight of a token, in batches that an older adapter version sampled. The weight is the"
            " token's probability in the trainer divided by the token's probability in the sampler. A lower"
            " weight is raised to this minimum."
        ),
    )
    stale_token_high: float = Field(
        2.0,
        ge=1,
        le=100,
        description=(
            "Maximum weight of a token, in batches that an older adapter version sampled. staleTokenLow"
            " explains the weight. In all other batches, the maximum is 2."
        ),
    )
    stale_sequence_low: float = Field(
        0.1,
        ge=0,
        le=1,
        description=(
            "Lower limit for the geometric mean of a completion's token weights, in batches that an older"
            " adapter version sampled. A completion below the limit has no policy gradient."
        ),
    )
    stale_sequence_high: float = Field(
        10.0,
        ge=1,
        le=1000,
        description=(
            "Upper limit for the geometric mean of a completion's token weights, in batches that an older"
            " adapter version sampled. A completion above the limit has no policy gradient."
        ),
    )
    deterministic: bool = Field(
        False,
        description=(
            "Whether a repeated run gives equal results, on the same machine with the same software"
            " versions. If true, sampling and training do not overlap. On a CPU it computes in float32, and"
            " vLLM has one thread, so sampling takes longer."
        ),
    )
    cpu_dtype: Dtype | None = Field(
        None,
        description=(
            "Dtype of the base model's weights in a run on the CPU. If absent: float32 in a cluster, and"
            " with rft run the dtype that is fast on the machine. A deterministic run always has float32. On"
            " GPUs the dtype is always bfloat16."
        ),
    )
    mask_truncated: bool = Field(
        False, description="Exclude completions that maxTokens or another limit truncates from the loss."
    )
    overlong_penalty: float | None = Field(
        None,
        ge=0,
        le=1,
        description=(
            "Amount that is subtracted from the reward of a completion of maxTokens tokens. Shorter"
            " completions lose less. Completions below four fifths of maxTokens lose nothing. 0 turns the"
            " subtraction off. If absent, the amount depends on objective."
        ),
    )
    refill_rounds: Int | None = Field(
        None,
        ge=0,
        le=10,
        description=(
            "Maximum number of refills per step. A refill replaces the groups whose rewards are all equal by"
            " groups of the epoch's next rows. Groups that still have equal rewards after the refills are not"
            " trained on. 0 turns the refills off. If absent, the number depends on objective."
        ),
    )


class Sampling(Model):
    """The parameters with which rollouts are sampled, such as temperature and rollouts per prompt."""

    temperature: float = Field(
        0.7, ge=0.1, le=2.0, description="Randomness of sampling. The usual range is 0.5 to 1.0."
    )
    top_p: float = Field(
        1.0,
        ge=0,
        le=1,
        description=(
            "Nucleus sampling: only the most probable tokens, up to this total probability, can be sampled."
            " With 0, only the most probable token can be sampled."
        ),
    )
    top_k: Int = Field(
        40,
        ge=0,
        le=100,
        description=(
            "Only the topK most probable tokens can be sampled. With 0, every token can be sampled. Values"
            " above 50 are not advised."
        ),
    )
    num_rollouts: Int = Field(
        4,
        ge=2,
        le=8,
        description="Number of completions per prompt. Their rewards are compared with each other.",
    )
    max_tokens: Int = Field(2048, ge=16, le=16384, description="Maximum length of a completion, in tokens.")
    stop: list[Annotated[str, Field(min_length=1)]] | None = Field(
        None,
        max_length=4,
        description="Texts that end a completion when they appear in it. vLLM allows at most 4 texts.",
    )
    engine: Literal["vllm", "transformers"] = Field(
        "vllm", description="Program that generates the completions."
    )
    start_timeout_seconds: Int | None = Field(
        None,
        ge=60,
        le=86400,
        description=(
            "Maximum time for the start of the sampler, in seconds. If absent: 900 seconds, plus 1 second"
            " for each 100 MB of the model's weights."
        ),
    )
