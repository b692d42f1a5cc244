"""The RFTJob that each round runs. The job takes 30 seconds. Its model is small enough for a ConfigMap."""

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

from tests.kubectl import Object

MODEL = "tiny-model"
ROWS = "chaos-rows"
CLAIM = "chaos-runs"
STEPS = 60
CHECKPOINT_EVERY = 2
"""Steps between two checkpoints. A fault may lose at most this many completed steps."""
NAME_LABEL = "rft.dev/job-name"
UID_LABEL = "rft.dev/job-uid"
ONE_THREAD = {"name": "OMP_NUM_THREADS", "value": "1"}
"""Environment variable of jobs on a test cluster, whose nodes share the few cores of one machine.

With two threads a matrix product waits until both have a core, so a busy machine slows it down many times.
"""


def prerequisites() -> list[Object]:
    """Return the objects that all jobs share: the model, the rows and the claim."""
    rows = [
        {"messages": [{"role": "user", "content": f"{a}+{b}"}], "answer": a + b}
        for a in range(10, 22)
        for b in range(10, 20)
    ]
    text = "\n".join(map(json.dumps, rows))
    return [_model(), _object("ConfigMap", ROWS, data={"rows.jsonl": text}), _claim()]


def job(name: str, engine: str, lost_node_seconds: int | None = None) -> Object:
    """Return an RFTJob of ``STEPS`` steps.

    Its pods tolerate a lost node for ``lost_node_seconds``. None: for the cluster's default time.
    """
    spec = {
        "model": {"name": "/models/tiny"},
        "dataset": {"configMap": {"name": ROWS, "key": "rows.jsonl"}},
        "graders": [{"name": "digits", "regex": {"pattern": "[0-9]"}}],
        "training": {"batchSizeTokens": 1024, "maxContextLength": 64, "epochs": 10, "loraRank": 4},
        "sampling": {"engine": engine, "maxTokens": 16, "numRollouts": 8},
        "evaluation": {"fraction": 0.1},
        "preflight": "off",
        "checkpoint": {"everySteps": CHECKPOINT_EVERY},
        "stop": {"maxSteps": STEPS},
        "resources": {
            "gpus": 0,
            "cpu": "300m",
            "memory": "5Gi",
            "tolerations": _tolerations(lost_node_seconds),
        },
        "storage": {"persistentVolumeClaim": {"claimName": CLAIM}},
        "template": {
            "env": [ONE_THREAD],
            "volumes": [{"name": "model", "mountPath": "/models/tiny", "configMap": MODEL}],
        },
    }
    return {"apiVersion": "rft.dev/v1alpha1", "kind": "RFTJob", "metadata": {"name": name}, "spec": spec}


def _tolerations(seconds: int | None) -> list[Object]:
    taints = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable") if seconds is not None else ()
    return [
        {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
        for taint in taints
    ]


def _object(kind: str, name: str, **rest: Any) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **rest}


def _model() -> Object:
    """Return a ConfigMap with the files of a one-layer model: random weights, one token per character."""
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        files = {path.name: base64.b64encode(path.read_bytes()).decode() for path in Path(folder).iterdir()}
    return _object("ConfigMap", MODEL, binaryData=files)


def write_model(folder: Path) -> None:
    """Write the files of the small model into ``folder``."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<end>", "?", *"0123456789+ab"]
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="?"))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast: Any = PreTrainedTokenizerFast
    llama: Any = LlamaForCausalLM
    tokenizer = fast(tokenizer_object=raw, eos_token="<end>", unk_token="?")
    # The end token after each message lets an environment continue a conversation.
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<end>{% endfor %}"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128,
        eos_token_id=0, bos_token_id=None,
    )  # fmt: skip
    llama(config).save_pretrained(folder)


def _claim() -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return _object("PersistentVolumeClaim", CLAIM, spec={**spec, "storageClassName": ""})


def reader() -> Object:
    """Return the pod that reads the runs' files. It mounts the claim, and runs with the trainer's UID."""
    container = {
        "name": "reader",
        "image": "rft-operator:dev",
        "imagePullPolicy": "Never",
        "command": ["sleep", "infinity"],
        "volumeMounts": [{"name": "runs", "mountPath": "/runs"}],
    }
    spec = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsUser": 10001, "runAsNonRoot": True, "fsGroup": 10000},
        "containers": [container],
        "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": CLAIM}}],
        "terminationGracePeriodSeconds": 0,
    }
    return _object("Pod", "reader", spec=spec)
