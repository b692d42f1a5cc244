"""Fields of other programs and services, with their counterparts here.

``rft import`` follows these tables, the migration pages are generated from them, and the message about an
unknown field in a manifest names the counterpart.
"""

from typing import Literal, NamedTuple

from rft_api.meant import fold

Origin = Literal["openai", "fireworks", "trl"]


class Counterpart(NamedTuple):
    """A field of another program."""

    theirs: str
    """The name as its documentation writes it."""
    ours: str
    """Path of the field of an RFTJob that says the same. Empty if there is none."""
    note: str
    """What is different, or what is done instead. Never empty if ``ours`` is."""


def _same(theirs: str, ours: str, note: str = "") -> Counterpart:
    return Counterpart(theirs, ours, note)


def _none(theirs: str, note: str) -> Counterpart:
    return Counterpart(theirs, "", note)


_HARDWARE = "the plan says how many GPUs the job needs; see rft plan and spec.resources"
_BATCH = "a batch here is a number of tokens, spec.training.batchSizeTokens; its default is used"
_IDENTITY = "it names an object of the service"
_LOGGING = "each step is logged in metrics.jsonl"
_MEMORY = "the plan chooses what fits the GPU's memory"

OPENAI: tuple[Counterpart, ...] = (
    _same("model", "spec.model.name", "closed models cannot be trained here: --model names an open one"),
    _same("training_file", "spec.dataset", "an id of an uploaded file: --rows names the file"),
    _same("validation_file", "spec.evaluation.dataset", "an id: --evaluation-rows names the file"),
    _same("suffix", "metadata.name"),
    _same("seed", "spec.training.seed"),
    _same("grader", "spec.graders"),
    _same("n_epochs", "spec.training.epochs", "auto is our default"),
    _same("learning_rate_multiplier", "spec.training.learningRate", "multiplies our default of 1e-4"),
    _same(
        "compute_multiplier",
        "spec.sampling.numRollouts",
        "multiplies our default of 4 completions per prompt",
    ),
    _same("eval_interval", "spec.evaluation.everySteps", "auto is our default"),
    _same("eval_samples", "spec.evaluation.samples", "with spec.evaluation.temperature 0 it is 1"),
    _same("integrations", "spec.tracking", "project, name and entity of W&B; its key is a Secret"),
    _same("wandb", "spec.tracking.wandb"),
    _none("batch_size", f"a number of examples; {_BATCH}"),
    _none(
        "reasoning_effort", "an open model thinks as its chat template says; see spec.model.chatTemplateArgs"
    ),
    _none(
        "response_format",
        "the sampler is not held to a schema; a jsonSchema grader of weight 0 measures how often it is kept",
    ),
    _none("metadata", "use metadata.labels and metadata.annotations"),
    _none("tools", "tools are methods of an environment: spec.environment.python"),
)

OPENAI_GRADERS: tuple[Counterpart, ...] = (
    _same("string_check", "stringCheck", "eq, ne (or neq), like and ilike: equals, notEquals, contains"),
    _same("text_similarity", "textSimilarity", "metrics: see below"),
    _same(
        "score_model", "model", 'range is scale with clip; the prompt asks for {"score": …}; onError: zero'
    ),
    _same("label_model", "model", "labels have the score 1 if they pass, else 0; onError: zero"),
    _same("python", "python", "the source unchanged; its grade(sample, item) is called as there"),
    _same("multi", "formula", "its parts are graders of weight 0 above it; calculate_output is expression"),
    _same("endpoint", "http", "the request has another form: docs/graders.md shows it"),
)

OPENAI_METRICS: tuple[Counterpart, ...] = (
    _same("fuzzy_match", "fuzzy", "rapidfuzz's WRatio of texts in lower case without punctuation"),
    _same("bleu", "bleu"),
    _same("gleu", "gleu"),
    _same("rouge_1", "rouge1"),
    _same("rouge_2", "rouge2"),
    _same("rouge_3", "rouge3"),
    _same("rouge_4", "rouge4"),
    _same("rouge_5", "rouge5"),
    _same("rouge_l", "rougeL"),
    _none("meteor", "METEOR needs the synonyms of WordNet: rougeL is used instead"),
    _none("cosine", "cosine needs a model of embeddings: rougeL is used instead"),
)

OPENAI_GRADER_FIELDS: tuple[Counterpart, ...] = (
    _none("pass_threshold", "it is of evals only: a reward has no threshold"),
    _none(
        "image_tag", "the code runs in the trainer's image; a package that lacks there is an error of loading"
    ),
    _none("reasoning_effort", "the judge's own default is used"),
    _none("temperature", "the judge is asked with temperature 0"),
    _none("top_p", "the judge is asked with temperature 0"),
    _none("seed", "the judge is asked with temperature 0"),
    _same("max_completions_tokens", "maxTokens"),
    _same("max_completion_tokens", "maxTokens"),
    _same("max_tokens", "maxTokens"),
)

FIREWORKS: tuple[Counterpart, ...] = (
    _same("base-model", "spec.model.name", "names of Llama and Qwen become hub ids; --model for others"),
    _same("dataset", "spec.dataset", "a name of an uploaded dataset: --rows names the file"),
    _same("dataset-jsonl", "spec.dataset"),
    _same("evaluation-dataset", "spec.evaluation.dataset", "a name: --evaluation-rows names the file"),
    _same("evaluator", "spec.graders", "a name of an uploaded evaluator: --evaluator names its Python file"),
    _same("output-model", "metadata.name"),
    _same("epochs", "spec.training.epochs"),
    _same("learning-rate", "spec.training.learningRate"),
    _same("lora-rank", "spec.training.loraRank"),
    _same("max-context-length", "spec.training.maxContextLength"),
    _same("batch-size", "spec.training.batchSizeTokens", "both are in tokens"),
    _same("learning-rate-warmup-steps", "spec.training.warmupSteps"),
    _same("optimizer-weight-decay", "spec.training.weightDecay"),
    _same("temperature", "spec.sampling.temperature"),
    _same("top-p", "spec.sampling.topP"),
    _same("top-k", "spec.sampling.topK"),
    _same("max-output-tokens", "spec.sampling.maxTokens"),
    _same("response-candidates-count", "spec.sampling.numRollouts"),
    _same("rl-loss-method", "spec.training.objective", "gspo-token is gspo; default is ours"),
    _same("method", "spec.training.objective", "gspo-token is gspo; default is ours"),
    _same("rl-kl-beta", "spec.training.klBeta"),
    _same("kl-beta", "spec.training.klBeta"),
    _same("wandb-project", "spec.tracking.wandb.project"),
    _same("wandb-entity", "spec.tracking.wandb.entity"),
    _none("eval-auto-carveout", "rows are held out unless spec.evaluation.fraction is 0"),
    _none("wandb", "project and entity are carried over"),
    _none("wandb-enabled", "spec.tracking.wandb is set if a project is given"),
    _none(
        "wandb-api-key",
        "the key is not written into a manifest: put it into a Secret, spec.tracking.wandb.secretRef",
    ),
    _none("warm-start-from", "an adapter to start from is a folder on the run's volume: spec.model.adapter"),
    _none("gradient-accumulation-steps", _MEMORY),
    _none("batch-size-samples", _BATCH),
    _none("chunk-size", "the rows of a step follow from batchSizeTokens"),
    _none("extra-body", "the sampler takes only the fields of spec.sampling"),
    _none("mcp-server", "tools are methods of an environment: spec.environment.python"),
    _none("node-count", _HARDWARE),
    _none("accelerator-count", _HARDWARE),
    _none("region", "the cluster's nodes decide; see spec.template.nodeSelector"),
    _none("jinja-template", "the chat template is the model's own; see spec.model.chatTemplateArgs"),
    _none("max-concurrent-rollouts", "the sampler takes as many as fit the GPU's memory"),
    _none("max-concurrent-evaluations", "two workers for each grader"),
    _none("source-job", "give the source job's own values"),
    _none("display-name", _IDENTITY),
    _none("job-id", _IDENTITY),
    _none("account-id", _IDENTITY),
    _none("purpose", _IDENTITY),
)

TRL: tuple[Counterpart, ...] = (
    _same("model", "spec.model.name"),
    _same("train_dataset", "spec.dataset", "load_dataset of a local file is carried over; --rows for others"),
    _same("eval_dataset", "spec.evaluation.dataset", "--evaluation-rows names the file"),
    _same("reward_funcs", "spec.graders", "functions of the script, with what they need of it"),
    _same("reward_weights", "spec.graders[].weight"),
    _same("learning_rate", "spec.training.learningRate", "ours is of LoRA: at least 1e-5"),
    _same("num_train_epochs", "spec.training.epochs"),
    _same("max_steps", "spec.stop.maxSteps"),
    _same("num_generations", "spec.sampling.numRollouts"),
    _same("max_completion_length", "spec.sampling.maxTokens"),
    _same("temperature", "spec.sampling.temperature"),
    _same("top_p", "spec.sampling.topP"),
    _same("top_k", "spec.sampling.topK"),
    _same("beta", "spec.training.klBeta"),
    _same("epsilon", "spec.training.clipLow"),
    _same("epsilon_high", "spec.training.clipHigh"),
    _same("loss_type", "spec.training.objective", "dr_grpo is drGrpo; bnpo is grpo"),
    _same("num_iterations", "spec.training.updatesPerBatch", "each update takes a part of the batch, once"),
    _same("warmup_steps", "spec.training.warmupSteps"),
    _same("lr_scheduler_type", "spec.training.schedule"),
    _same("weight_decay", "spec.training.weightDecay"),
    _same("max_grad_norm", "spec.training.maxGradNorm"),
    _same("seed", "spec.training.seed"),
    _same("mask_truncated_completions", "spec.training.maskTruncated"),
    _same("save_steps", "spec.checkpoint.everySteps"),
    _same("save_total_limit", "spec.checkpoint.keep"),
    _same("eval_steps", "spec.evaluation.everySteps"),
    _same("run_name", "metadata.name"),
    _same("r", "spec.training.loraRank"),
    _same("lora_alpha", "spec.training.loraAlpha"),
    _same("target_modules", "spec.training.loraTargets", "all-linear, or attention for q, k, v and o alone"),
    _none("importance_sampling_level", "sequence is spec.training.objective gspo"),
    _none("output_dir", "rft run takes it as --output"),
    _none("report_to", "name the tracker in spec.tracking, with its project and Secret"),
    _none("warmup_ratio", "the warm-up is a number of steps: spec.training.warmupSteps"),
    _none("max_prompt_length", "spec.training.maxContextLength bounds prompt and completion together"),
    _none("per_device_train_batch_size", _BATCH),
    _none("per_device_eval_batch_size", _BATCH),
    _none("gradient_accumulation_steps", _MEMORY),
    _none("generation_batch_size", _BATCH),
    _none("steps_per_generation", "spec.training.updatesPerBatch divides a batch into optimizer steps"),
    _none(
        "scale_rewards", "advantages are divided by the group's standard deviation, with drGrpo by nothing"
    ),
    _none("delta", "there is no second bound of the ratio"),
    _none("gradient_checkpointing", _MEMORY),
    _none("bf16", "GPUs compute in bfloat16"),
    _none("fp16", "GPUs compute in bfloat16"),
    _none("optim", "the optimizer is AdamW"),
    _none("logging_steps", _LOGGING),
    _none("log_completions", "each completion is recorded; see rft samples"),
    _none("save_strategy", "checkpoints are saved every spec.checkpoint.everySteps"),
    _none(
        "eval_strategy", "the policy is evaluated at the start and the end; see spec.evaluation.everySteps"
    ),
    _none("push_to_hub", "the adapter stays in the run's folder; see rft export"),
    _none("use_vllm", "vLLM samples in any case; see spec.sampling.engine"),
    _none("vllm_mode", "the plan decides how GPUs are shared"),
    _none("vllm_gpu_memory_utilization", "the plan divides the GPU's memory"),
    _none("vllm_tensor_parallel_size", _HARDWARE),
    _none("generation_kwargs", "the sampler takes only the fields of spec.sampling"),
    _none("remove_unused_columns", "graders get every column"),
    _none("lora_dropout", "the adapter has no dropout"),
    _none("task_type", "the model is a causal language model"),
    _none("bias", "biases are not trained"),
    _none("processing_class", "the tokenizer is the model's own"),
    _none("callbacks", "see spec.stop and spec.tracking"),
    _none("tools", "tools are methods of an environment: spec.environment.python"),
    _none("rollout_func", "the sampler is spec.sampling.engine"),
    _none("reward_processing_classes", "there are no reward models"),
    _none("environment_factory", "write its class as spec.environment.python"),
)

TABLES: dict[Origin, tuple[Counterpart, ...]] = {"openai": OPENAI, "fireworks": FIREWORKS, "trl": TRL}
NAMES: dict[Origin, str] = {"openai": "OpenAI", "fireworks": "Fireworks", "trl": "TRL"}


def find(origin: Origin, theirs: str) -> Counterpart | None:
    """Return the entry of a table for a name in any spelling, such as ``loraRank`` for ``lora-rank``."""
    return next((each for each in TABLES[origin] if fold(each.theirs) == fold(theirs)), None)


def path_of(theirs: str) -> str:
    """Return the path of the field here that says what ``theirs`` says in any of the tables, or ""."""
    found = (find(origin, theirs) for origin in TABLES)
    return next((each.ours for each in found if each is not None and each.ours), "")


def why_none(theirs: str) -> str:
    """Return a sentence that a field of another program has no counterpart here, or "" if it is none."""
    for origin, name in NAMES.items():
        found = find(origin, theirs)
        if found is not None and not found.ours:
            return f"{found.theirs} of {name} has no counterpart here: {found.note}"
    return ""
