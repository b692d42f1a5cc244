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
  [ "$cluster_was_up" = yes ] || python3 -m tests.cluster down
}
trap clean_up EXIT
trap 'exit 130' INT TERM

stage "checks" scripts/lint.sh
stage "tests without a cluster" $python -m pytest -m "not cluster and not e2e" "$@"
stage "cluster and images" scripts/demo-cluster.sh prepare
stage "tests on the cluster" $python -m pytest -m "cluster or e2e" "$@"

if [ ${#failed[@]} -ne 0 ]; then
  printf 'failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
