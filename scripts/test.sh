#!/usr/bin/env bash
# `make test`: all checks and all tests. Brings the test cluster up if it is down, and then takes it down again.
# What fails does not stop the rest: one run shows everything that is wrong. The last lines name each failed
# check and test of both halves, with the command that runs it again alone. RFT_TEST_ONLY=cluster leaves the half out
# that needs no cluster.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/ready-programs.sh

python=.venv/bin/python
report=$(mktemp -d) # what has failed: one file with stages, one with tests of each half
stage() {
  local name=$1 again=$2 started=$SECONDS
  shift 2
  echo "== $name"
  "$@" || printf '%s\t%s\n' "$name" "$again" >>"$report/stages"
  echo "== $name took $((SECONDS - started)) s"
}

# bash acts on a signal only when its child has ended, unless it waits for it. The child gets a process group of its
# own, so that all of it can be ended.
current=
interruptible() {
  set -m
  "$@" </dev/null &
  current=$!
  set +m
  wait "$current"
  local status=$?
  current=
  return $status
}
end_group() { # and wait for its first process
  [ -z "$1" ] || { kill -- "-$1" && wait "$1"; } 2>/dev/null
}

leave_cluster=no
python3 -m tests.cluster status >/dev/null 2>&1 && leave_cluster=yes
log=$(mktemp)
beside=
cluster_down() {
  [ "$leave_cluster" = yes ] || python3 -m tests.cluster down
  leave_cluster=yes
  end_engine
}
clean_up() {
  end_group "$beside"
  end_group "$current"
  rm -rf "$log" "$report"
  cluster_down
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# What needs no cluster goes on beside the rest, which waits for archives and pods more than for a core.
floor=(--cov) # of coverage, in pyproject.toml
[ $# -eq 0 ] || floor=() # some of the tests cover less
without_a_cluster() {
  stage "checks" "scripts/lint.sh" scripts/lint.sh
  RFT_FAILED_TESTS=$report/unit stage "unit tests, and what they cover of the code that decides" \
    "$python -m pytest tests/unit --cov" $python -m pytest tests/unit "${floor[@]}" --durations=10 "$@"
  RFT_FAILED_TESTS=$report/without stage "tests without a cluster" "" \
    $python -m pytest --ignore=tests/unit -m "not cluster and not e2e" --durations=10 "$@"
}
if [ "$leave_cluster" = no ]; then
  use_ready_programs
  use_ready_kueue
fi
if [ "${RFT_TEST_ONLY:-}" != cluster ]; then
  set -m # a process group of its own, so that an interrupt ends all of it
  without_a_cluster "$@" >"$log" 2>&1 </dev/null &
  beside=$!
  set +m
fi

[ "$leave_cluster" = yes ] || stage "Docker engine and kind's node image" "" start_engine
prepare="scripts/demo-cluster.sh prepare"
stage "cluster and images" "$prepare" interruptible $prepare
RFT_FAILED_TESTS=$report/cluster stage "tests on the cluster" "" \
  interruptible $python -m pytest -m "cluster or e2e" --durations=10 "$@"
if [ -n "$beside" ]; then
  wait "$beside" || printf 'the half without a cluster ended early\tscripts/test.sh\n' >>"$report/stages"
  beside=
  cat "$log"
fi
cluster_down # before the summary, so that nothing follows it

[ -s "$report/stages" ] || exit 0
# A stage of tests whose names are known is told by them; one that has none ended before it could write them.
setting=${RFT_CPU_DTYPE:+RFT_CPU_DTYPE=$RFT_CPU_DTYPE }
{
  echo "failed, with the command that runs it again alone:"
  while IFS=$'\t' read -r name again; do echo "  $name${again:+: $setting$again}"; done <"$report/stages"
  while read -r test; do echo "  $setting$python -m pytest $test"; done < <(cat "$report/unit" "$report/without" 2>/dev/null)
  while read -r test; do
    echo "  $prepare && $setting$python -m pytest $test"
  done < <(cat "$report/cluster" 2>/dev/null)
} >&2
exit 1
