"""Small manifests for tests."""

from typing import Any


def manifest(**spec: Any) -> dict[str, Any]:
    """Return a valid RFTJob. The keyword arguments are fields of its spec, and replace the usual ones."""
    return {
        "apiVersion": "rft.dev/v1alpha1",
        "kind": "RFTJob",
        "metadata": {"name": "job"},
        "spec": {
            "model": {"name": "org/model"},
            "dataset": {"uri": "./rows.jsonl"},
            "graders": [{"name": "right", "numeric": {}}],
            "storage": {"ephemeral": {}},
            **spec,
        },
    }
