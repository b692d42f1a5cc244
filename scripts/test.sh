#!/usr/bin/env bash
# `make test`: all checks and all tests. Brings the test cluster up if it is down, and then takes it down again.
#
# The cluster and the images build beside the quick checks: on two cores the whole is bound by downloads and
# single-threaded parts for long stretches.
set -uo pipefail
cd "$(dirname "$0")/.."

python=.venv/bin/python
logs=.cache/test
mkdir -p "$logs"
cluster_was_up=no
python3 -m tests.cluster status >/dev/null 2>&1 && cluster_was_up=yes

clean_up() {
  [ -n "${preparing:-}" ] && kill -TERM -- "-$preparing" 2>/dev/null && wait "$preparing" 2>/dev/null
  [ "$cluster_was_up" = no ] && python3 -m tests.cluster down
}
trap clean_up EXIT
trap 'exit 130' INT TERM

set -m
( scripts/demo-cluster.sh prepare ) >"$logs/prepare.log" 2>&1 &
preparing=$!
set +m

status=0
time scripts/lint.sh || status=1
echo "== tests without a cluster"
time $python -m pytest -m "not cluster and not e2e" "$@" || status=1

echo "== waiting for the cluster and the images ($logs/prepare.log)"
if ! wait "$preparing"; then
  tail -n 40 "$logs/prepare.log"
  echo "the cluster or the images could not be prepared: the tests on them will say so" >&2
  status=1
fi
preparing=
grep -E '^(==|took)' "$logs/prepare.log"

echo "== tests on the cluster"
time $python -m pytest -m "cluster or e2e" "$@" || status=1
exit $status
