"""Writes the rows of the arithmetic example into ``examples/arithmetic.yaml``; they are the same each time.

    python examples/arithmetic/generate.py [--check]

The rows are a ConfigMap in the same file as the RFTJob. So this one file is enough for ``kubectl apply`` and
for ``rft run``. Everything after the line ``MARKER`` is replaced.
"""

import json
import random
import sys
from pathlib import Path

MANIFEST = Path(__file__).parent.parent / "arithmetic.yaml"
MARKER = "# --- The rows, written by examples/arithmetic/generate.py. ---\n"
HEAD = """---
apiVersion: v1
kind: ConfigMap
metadata:
  name: arithmetic-rows
data:
  train.jsonl: |
"""
ROWS = 960


def rows() -> list[dict[str, object]]:
    """Return different sums of two two-digit numbers whose result has two digits too, in random order."""
    pairs = [(a, b) for a in range(10, 90) for b in range(10, 100 - a)]
    return [
        {
            "messages": [
                {"role": "system", "content": "You answer sums with just the equation."},
                {"role": "user", "content": f"What is {a} + {b}? Answer with just the equation."},
            ],
            "answer": a + b,
        }
        for a, b in random.Random(0).sample(pairs, ROWS)
    ]


def main() -> int:
    """Write the rows into the manifest. With --check, only return whether the manifest would change."""
    text = MANIFEST.read_text(encoding="utf-8")
    job, marker, _ = text.partition(MARKER)
    if not marker:
        sys.exit(f"{MANIFEST}: add this line again, before the rows: {MARKER.strip()}")
    lines = "".join(f"    {json.dumps(row)}\n" for row in rows())
    wanted = job + MARKER + HEAD + lines
    if "--check" in sys.argv[1:]:
        return int(wanted != text)
    MANIFEST.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
