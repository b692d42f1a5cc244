"""Converts GSM8K's lines to rows: the question becomes the prompt, the number after #### the answer.

    python examples/gsm8k/convert.py < train.jsonl > rows/train.jsonl

GSM8K (Cobbe et al. 2021, https://arxiv.org/abs/2110.14168) has a solution for each question, which ends in
``#### 72``. The text of the solution is left out. The model has to find its own, and only the number is
graded.
"""

import json
import sys

PROMPT = "Think step by step, then write the answer as a number after ####, on a line of its own."


def row(line: str) -> dict[str, object]:
    """Return the row of one published line. Raises ValueError if it has no number after ####."""
    published = json.loads(line)
    _, marker, number = published["answer"].rpartition("####")
    if not marker:
        raise ValueError("no number after ####")
    answer = float(number.replace(",", ""))
    return {
        "messages": [
            {"role": "system", "content": PROMPT},
            {"role": "user", "content": published["question"]},
        ],
        "answer": int(answer) if answer.is_integer() else answer,
    }


def main() -> int:
    """Convert standard input to standard output."""
    for number, line in enumerate(sys.stdin, start=1):
        try:
            print(json.dumps(row(line), ensure_ascii=False))
        except (ValueError, KeyError, TypeError) as error:
            print(f"line {number}: not a line of GSM8K: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
