"""Tables that map fields of OpenAI, Fireworks and TRL to the fields of an RFTJob with the same meaning.

``rft import`` uses these tables to convert a job of another program to an RFTJob. The pages about migration
in the docs are generated from them. If a manifest has a field of another program, the error message says
which field of an RFTJob has the same meaning.
"""

from typing import Literal, NamedTuple

from rft_api.meant import fold

Origin = Literal["openai", "fireworks", "trl"]


class Counterpart(NamedTuple):
    """A field of another program, such as OpenAI's, and the field of an RFTJob with the same meaning."""

    theirs: str
    """The name of the field, as the documentation of the other program writes it."""
    ours: str
    """Path of the field of an RFTJob. Empty if no field of an RFTJob has the same meaning."""
    note: str
    """What is different in an RFTJob, or what to do instead. It is never empty if ``ours`` is empty."""


def _same(theirs: str, ours: str, note: str = "") -> Counterpart:
    return Counterpart(theirs, ours, note)


def _none(theirs: str, note: str) -> Counterpart:
    return Counterpart(theirs, "", note)


_HARDWARE = "the plan says how many GPUs the job needs; see rft plan and spec.resources"
_BATCH = "the size of a batch is a number of tokens, spec.training.batchSizeTokens, whose default is used"
_IDENTITY = "the field only identifies an object at Fireworks"
_LOGGING = "each step is logged in metrics.jsonl"
_MEMORY = "the plan chooses what fits into the GPU's memory"
_LOSS_METHODS = "gspo-token becomes gspo, and default becomes the default of spec.training.objective"

OPENAI: tuple[Counterpart, ...] = (
    _same("model", "spec.model.name", "closed models cannot be trained here: name an open one with --model"),
    _same(
        "training_file", "spec.dataset", "the value is the id of an uploaded file: name the file with --rows"
    ),
    _same(
        "validation_file",
        "spec.evaluation.dataset",
        "the value is the id of an uploaded file: name the file with --evaluation-rows",
    ),
    _same("suffix", "metadata.name"),
    _same("seed", "spec.training.seed"),
    _same("grader", "spec.graders"),
    _same("n_epochs", "spec.training.epochs", "auto becomes the default of spec.training.epochs"),
    _same(
        "learning_rate_multiplier",
        "spec.training.learningRate",
        "the value is multiplied by 1e-4, the default of spec.training.learningRate",
    ),
    _same(
        "compute_multiplier",
        "spec.sampling.numRollouts",
        "the value is multiplied by 4 completions per prompt, the default of spec.sampling.numRollouts",
    ),
    _same(
        "eval_interval",
        "spec.evaluation.everySteps",
        "auto becomes the default of spec.evaluation.everySteps",
    ),
    _same(
        "eval_samples",
        "spec.evaluation.samples",
        "with spec.evaluation.temperature 0 there is 1 completion per row",
    ),
    _same(
        "integrations",
        "spec.tracking",
        "the project and the entity of W&B are imported; put the API key of W&B into a Secret",
    ),
    _same("wandb", "spec.tracking.wandb"),
    _none("batch_size", f"the value is a number of examples; {_BATCH}"),
    _none(
        "reasoning_effort",
        "the chat template sets how an open model thinks; its arguments are spec.model.chatTemplateArgs",
    ),
    _none(
        "response_format",
        "the sampler cannot force replies to follow a schema; a jsonSchema grader of weight 0 measures how"
        " many do",
    ),
    _none("metadata", "use metadata.labels and metadata.annotations"),
    _none("tools", "write the tools as methods of a class: spec.environment.python"),
)

OPENAI_GRADERS: tuple[Counterpart, ...] = (
    _same(
        "string_check",
        "stringCheck",
        "eq becomes equals, ne and neq become notEquals, like and ilike become contains",
    ),
    _same("text_similarity", "textSimilarity", "metrics: see below"),
    _same(
        "score_model",
        "model",
        'range becomes scale with clip; the imported prompt asks for {"score": …}; onError becomes zero',
    ),
    _same(
        "label_model",
        "model",
        "a label in passing_labels gets the score 1, any other label 0; onError becomes zero",
    ),
    _same(
        "python", "python", "the source is copied unchanged; grade(sample, item) is called as OpenAI calls it"
    ),
    _same(
        "multi",
        "formula",
        "its graders become graders of weight 0 above the formula; calculate_output becomes expression",
    ),
    _same(
        "endpoint",
        "http",
        'your service gets JSON of another form than OpenAI sends: see "http" in docs/graders.md',
    ),
)

OPENAI_METRICS: tuple[Counterpart, ...] = (
    _same(
        "fuzzy_match",
        "fuzzy",
        "rapidfuzz's WRatio of the two texts, in lower case and without punctuation",
    ),
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
    _none("pass_threshold", "only OpenAI's evals use this field: a reward has no threshold"),
    _none("image_tag", "the code runs in the trainer's image, and cannot import packages that are not in it"),
    _none("reasoning_effort", "the judge's own default is used"),
    _none("temperature", "the judge is called with temperature 0"),
    _none("top_p", "the judge is called with temperature 0"),
    _none("seed", "the judge is called with temperature 0"),
    _same("max_completions_tokens", "maxTokens"),
    _same("max_completion_tokens", "maxTokens"),
    _same("max_tokens", "maxTokens"),
)

FIREWORKS: tuple[Counterpart, ...] = (
    _same(
        "base-model",
        "spec.model.name",
        "names of Llama and Qwen models become hub ids; name any other model with --model",
    ),
    _same("dataset", "spec.dataset", "the value names an uploaded dataset: name the file with --rows"),
    _same("dataset-jsonl", "spec.dataset"),
    _same(
        "evaluation-dataset",
        "spec.evaluation.dataset",
        "the value names an uploaded dataset: name the file with --evaluation-rows",
    ),
    _same(
        "evaluator", "spec.graders", "the value names an uploaded evaluator: name its file with --evaluator"
    ),
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
    _same("rl-loss-method", "spec.training.objective", _LOSS_METHODS),
    _same("method", "spec.training.objective", _LOSS_METHODS),
    _same("rl-kl-beta", "spec.training.klBeta"),
    _same("kl-beta", "spec.training.klBeta"),
    _same("wandb-project", "spec.tracking.wandb.project"),
    _same("wandb-entity", "spec.tracking.wandb.entity"),
    _none("eval-auto-carveout", "rows are held out unless spec.evaluation.fraction is 0"),
    _none("wandb", "only the project and the entity of W&B are imported"),
    _none("wandb-enabled", "spec.tracking.wandb is set if the job names a project of W&B"),
    _none(
        "wandb-api-key",
        "the import writes this key to no file: put it into the Secret that spec.tracking.wandb.secretRef"
        " names",
    ),
    _none(
        "warm-start-from",
        "copy the adapter to a folder on the run's volume, and name this folder in spec.model.adapter",
    ),
    _none("gradient-accumulation-steps", _MEMORY),
    _none("batch-size-samples", _BATCH),
    _none("chunk-size", "spec.training.batchSizeTokens determines how many rows a training step uses"),
    _none("extra-body", "the sampler has no settings other than the fields of spec.sampling"),
    _none("mcp-server", "write the tools as methods of a class: spec.environment.python"),
    _none("node-count", _HARDWARE),
    _none("accelerator-count", _HARDWARE),
    _none("region", "the pod runs in your cluster; to choose its nodes, set spec.resources.nodeSelector"),
    _none(
        "jinja-template",
        "the model's own chat template is used; its arguments are spec.model.chatTemplateArgs",
    ),
    _none(
        "max-concurrent-rollouts", "the sampler runs as many rollouts at once as fit into the GPU's memory"
    ),
    _none("max-concurrent-evaluations", "each grader has two workers"),
    _none("source-job", "write the values of the source job into the manifest"),
    _none("display-name", _IDENTITY),
    _none("job-id", _IDENTITY),
    _none("account-id", _IDENTITY),
    _none("purpose", _IDENTITY),
)

TRL: tuple[Counterpart, ...] = (
    _same("model", "spec.model.name"),
    _same(
        "train_dataset",
        "spec.dataset",
        "only load_dataset of a local file is imported; name the file of any other dataset with --rows",
    ),
    _same("eval_dataset", "spec.evaluation.dataset", "name the file with --evaluation-rows"),
    _same(
        "reward_funcs", "spec.graders", "the functions are copied, with the parts of the script that they use"
    ),
    _same("reward_weights", "spec.graders[].weight"),
    _same(
        "learning_rate",
        "spec.training.learningRate",
        "LoRA needs a higher learning rate than full fine-tuning; the least value here is 1e-5",
    ),
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
    _same("loss_type", "spec.training.objective", "dr_grpo becomes drGrpo, and bnpo becomes grpo"),
    _same(
        "num_iterations",
        "spec.training.updatesPerBatch",
        "each update of an RFTJob uses another part of the batch, not the whole batch",
    ),
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
    _same(
        "target_modules",
        "spec.training.loraTargets",
        "the value becomes attention if it names only q, k, v and o; any other value becomes all-linear",
    ),
    _none("importance_sampling_level", "for the value sequence, set spec.training.objective to gspo"),
    _none("output_dir", "name the folder with --output of rft run"),
    _none("report_to", "name the tracker in spec.tracking, with its project and Secret"),
    _none("warmup_ratio", "give the warm-up as a number of steps: spec.training.warmupSteps"),
    _none("max_prompt_length", "spec.training.maxContextLength limits prompt plus completion"),
    _none("per_device_train_batch_size", _BATCH),
    _none("per_device_eval_batch_size", _BATCH),
    _none("gradient_accumulation_steps", _MEMORY),
    _none("generation_batch_size", _BATCH),
    _none("steps_per_generation", "spec.training.updatesPerBatch sets the optimizer steps per batch"),
    _none(
        "scale_rewards",
        "advantages are divided by the group's standard deviation, except with the objective drGrpo",
    ),
    _none("delta", "the probability ratio has no upper limit other than spec.training.clipHigh"),
    _none("gradient_checkpointing", _MEMORY),
    _none("bf16", "GPUs compute in bfloat16"),
    _none("fp16", "GPUs compute in bfloat16"),
    _none("optim", "the optimizer is AdamW"),
    _none("logging_steps", _LOGGING),
    _none("log_completions", "every completion is recorded; rft samples shows them"),
    _none("save_strategy", "a checkpoint is saved every spec.checkpoint.everySteps steps"),
    _none(
        "eval_strategy",
        "the policy is evaluated at the start and the end; spec.evaluation.everySteps adds evaluations",
    ),
    _none(
        "push_to_hub",
        "the adapter stays in the run's folder; spec.output.hub or rft push copies it to the hub",
    ),
    _none("use_vllm", "vLLM samples, unless spec.sampling.engine is transformers"),
    _none("vllm_mode", "the plan decides which GPUs train and which GPUs sample"),
    _none("vllm_gpu_memory_utilization", "the plan divides the GPU's memory between trainer and sampler"),
    _none("vllm_tensor_parallel_size", _HARDWARE),
    _none("generation_kwargs", "the sampler has no settings other than the fields of spec.sampling"),
    _none("remove_unused_columns", "graders get every column"),
    _none("lora_dropout", "the adapter has no dropout"),
    _none("task_type", "every model is trained as a causal language model"),
    _none("bias", "biases are not trained"),
    _none("processing_class", "the model's own tokenizer is used"),
    _none("callbacks", "see spec.stop and spec.tracking"),
    _none("tools", "write the tools as methods of a class: spec.environment.python"),
    _none("rollout_func", "the sampler is spec.sampling.engine"),
    _none("reward_processing_classes", "there are no reward models"),
    _none("environment_factory", "write the class of the environment as spec.environment.python"),
)

TABLES: dict[Origin, tuple[Counterpart, ...]] = {"openai": OPENAI, "fireworks": FIREWORKS, "trl": TRL}
NAMES: dict[Origin, str] = {"openai": "OpenAI", "fireworks": "Fireworks", "trl": "TRL"}


def find(origin: Origin, theirs: str) -> Counterpart | None:
    """Return the entry for the field ``theirs`` in the table of the program ``origin``, or None.

    Case, dashes and underscores in the name do not matter: ``loraRank`` finds the entry for ``lora-rank``.
    """
    return next((each for each in TABLES[origin] if fold(each.theirs) == fold(theirs)), None)


def path_of(theirs: str) -> str:
    """Return the path of the field of an RFTJob that has the same meaning as a field of another program.

    ``theirs`` is the name of the other program's field. Return "" if no field has the same meaning.
    """
    found = (find(origin, theirs) for origin in TABLES)
    return next((each.ours for each in found if each is not None and each.ours), "")


def why_none(theirs: str) -> str:
    """Return a sentence that says why no field of an RFTJob has the meaning of a field of another program.

    ``theirs`` is the name of the other program's field. The sentence also says what to do instead. Return ""
    if the tables of the other programs give no reason.
    """
    for origin, name in NAMES.items():
        found = find(origin, theirs)
        if found is not None and not found.ours:
            return f"{found.theirs} of {name} has no counterpart in an RFTJob: {found.note}"
    return ""
