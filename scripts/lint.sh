#!/usr/bin/env bash
# Runs all static checks, and fails at the end if any of them failed.
set -uo pipefail
cd "$(dirname "$0")/.."

bin=.venv/bin
failed=()
check() {
  local name=$1
  shift
  echo "== $name"
  "$@" || failed+=("$name")
}

check "ruff check" $bin/ruff check .
check "ruff format" $bin/ruff format --check .
check "mypy, products" $bin/mypy operator/rft operator/rft_* trainer-image/rft_trainer
check "mypy, tests, benchmarks and scripts" $bin/mypy tests bench scripts
check "import-linter" $bin/lint-imports
check "references" $bin/python scripts/references.py
check "generated files" $bin/python -m rft_codegen --check
check "picture" $bin/python scripts/picture.py --check
for script in scripts/*.sh .ci/run; do check "bash -n $script" bash -n "$script"; done

if [ ${#failed[@]} -ne 0 ]; then
  printf 'failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
