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
log=$(mktemp)
beside=
clean_up() {
  [ -z "$beside" ] || kill -- "-$beside" 2>/dev/null
  rm -f "$log"
  [ "$cluster_was_up" = yes ] || python3 -m tests.cluster down
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# What needs no cluster goes on beside the rest, which waits for archives and pods more than for a core.
without_a_cluster() {
  stage "checks" scripts/lint.sh
  stage "tests without a cluster" $python -m pytest -m "not cluster and not e2e" --durations=10 "$@"
  [ ${#failed[@]} -eq 0 ]
}
set -m # a process group of its own, so that an interrupt ends all of it
without_a_cluster "$@" >"$log" 2>&1 </dev/null &
beside=$!
set +m
told() {
  local code=0
  wait "$beside" || code=$?
  beside=
  cat "$log"
  return $code
}

stage "cluster and images" scripts/demo-cluster.sh prepare
stage "tests on the cluster" $python -m pytest -m "cluster or e2e" --durations=10 "$@"
stage "what needs no cluster, begun at the same time" told

if [ ${#failed[@]} -ne 0 ]; then
  printf 'failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
