#!/usr/bin/env bash
# `make test`: all checks and all tests. Brings the test cluster up if it is down, and then takes it down again.
# What fails does not stop the rest: one run shows everything that is wrong.
set -uo pipefail
cd "$(dirname "$0")/.."

python=.venv/bin/python
failed=()
stage() {
  local name=$1 started=$SECONDS
  shift
  echo "== $name"
  "$@" || failed+=("$name")
  echo "== $name took $((SECONDS - started)) s"
}

cluster_was_up=no
python3 -m tests.cluster status >/dev/null 2>&1 && cluster_was_up=yes
clean_up() {
  rm -f "${log:-}"
  [ "$cluster_was_up" = yes ] || python3 -m tests.cluster down
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Preparing waits for archives, packages and processes more than for a core: the checks fit beside it.
log=$(mktemp)
scripts/lint.sh >"$log" 2>&1 &
checking=$!
checked() {
  local code=0
  wait $checking || code=$?
  cat "$log"
  return $code
}

stage "cluster and images" scripts/demo-cluster.sh prepare
stage "checks, begun beside it" checked
stage "tests without a cluster" $python -m pytest -m "not cluster and not e2e" "$@"
stage "tests on the cluster" $python -m pytest -m "cluster or e2e" "$@"

if [ ${#failed[@]} -ne 0 ]; then
  printf 'failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
