"""Converts GSM8K's lines to rows. The question becomes the prompt, and the number after #### becomes the
answer.

    python examples/gsm8k/convert.py < train.jsonl > rows/train.jsonl

GSM8K (Cobbe et al. 2021, https://arxiv.org/abs/2110.14168) has a solution for each question. A solution ends
in a number, such as ``#### 72``. The text before this number is left out: the model has to find its own
solution, and only the number is graded.
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
    """Read GSM8K's lines from standard input, and write the rows to standard output."""
    for number, line in enumerate(sys.stdin, start=1):
        try:
            print(json.dumps(row(line), ensure_ascii=False))
        except (ValueError, KeyError, TypeError) as error:
            print(f"line {number}: not a line of GSM8K: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
