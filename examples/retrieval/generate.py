"""Writes the rows of the retrieval example into ``examples/retrieval.yaml``; they are the same each time.

    pip install reasoning-gym==0.1.25
    python examples/retrieval/generate.py

The task is reasoning-gym's ``needle_haystack``, with its questions and answers. Other tasks of reasoning-gym
can be used in the same way if each answer is either right or wrong. Other tasks have their own scorers. A
``python`` grader can call these scorers.
"""

import json
import sys
from pathlib import Path

import reasoning_gym

MANIFEST = Path(__file__).parent.parent / "retrieval.yaml"
MARKER = "# --- The rows, written by examples/retrieval/generate.py. ---\n"
HEAD = """---
apiVersion: v1
kind: ConfigMap
metadata:
  name: retrieval-rows
data:
  train.jsonl: |
"""
TASK = "needle_haystack"
ROWS = 640


def row(question: str, answer: str) -> dict[str, object]:
    """Return a line of the dataset."""
    return {"messages": [{"role": "user", "content": question}], "answer": answer}


def main() -> None:
    """Replace everything after the line ``MARKER`` in the manifest."""
    job, marker, _ = MANIFEST.read_text(encoding="utf-8").partition(MARKER)
    if not marker:
        sys.exit(f"{MANIFEST}: add this line again, before the rows: {MARKER.strip()}")
    task = reasoning_gym.create_dataset(TASK, size=ROWS, seed=0, min_num_statements=3, max_num_statements=5)
    lines = "".join(f"    {json.dumps(row(one['question'], one['answer']))}\n" for one in task)
    MANIFEST.write_text(job + MARKER + HEAD + lines, encoding="utf-8")


if __name__ == "__main__":
    main()
