#!/usr/bin/env bash
# `make test`: all checks and all tests. Brings the test cluster up if it is down, and then takes it down again.
# A failure does not stop the other checks and tests, so one run shows all failures. The last lines list each failed
# check and test, with the command that runs only this one again. With RFT_TEST_ONLY=cluster only the tests run that
# need a cluster, and with RFT_TEST_ONLY=long only those that `make test` has no time for.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/ready-programs.sh
. scripts/disk.sh

# Images and nodes take 23 GiB, and packages and archives in the caches 10 GiB more at the first run.
need_disk "${RFT_DISK_GIB:-24}" "make test" . "${RFT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}}" /var/lib/docker \
  /var/lib/containers || exit 1

python=.venv/bin/python
report=$(mktemp -d) # the failures: a file with failed stages, and files with failed tests
stage() {
  local name=$1 again=$2 started=$SECONDS
  shift 2
  echo "== $name"
  "$@" || printf '%s\t%s\n' "$name" "$again" >>"$report/stages"
  echo "== $name took $((SECONDS - started)) s"
}

# bash handles a signal only after its child has ended, except in `wait`. So the child runs in the background. It has
# its own process group, so that all its processes can be stopped.
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

# Both halves compute at the same time. With one thread for each process no thread waits for another one's core.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

unit="scripts/unit-tests.sh"
on_cluster=(tests/cluster tests/e2e tests/integration) # a unit test finds marks in other folders
vllm=tests/trainer/test_vllm.py
apart=(--ignore=$vllm)
if [ $# -ne 0 ]; then # a selection of the tests
  unit="$python -m pytest tests/unit" # it covers less
  on_cluster=()
  apart=()
fi
# Checks and tests without a cluster run in parallel, except those of vLLM, which follow the tests on the cluster: so
# both halves take about the same time. The other half goes first where both want a core. To the kernel all containers
# of the cluster together weigh as much as one process of this half.
without_a_cluster() {
  renice -n 5 -p $BASHPID >/dev/null
  stage "checks" "scripts/lint.sh" scripts/lint.sh
  RFT_FAILED_TESTS=$report/unit stage "unit tests, and what they cover of the code that decides" \
    "$unit" $unit --durations=10 "$@"
  RFT_FAILED_TESTS=$report/without stage "tests without a cluster" "" \
    $python -m pytest --ignore=tests/unit "${apart[@]}" -m "not cluster and not e2e and not long" --durations=10 "$@"
}
if [ "$leave_cluster" = no ]; then
  use_ready_programs
  use_ready_kueue
fi
# Before both halves: without helm, tests of the chart would be skipped.
stage "kubectl and helm" "python3 -m tests.cluster tools" python3 -m tests.cluster tools
if [ -z "${RFT_TEST_ONLY:-}" ]; then
  set -m # its own process group, so that an interrupt stops all its processes
  without_a_cluster "$@" >"$log" 2>&1 </dev/null &
  beside=$!
  set +m
fi

[ "$leave_cluster" = yes ] || stage "Docker engine and kind's node image" "" start_engine
prepare="scripts/demo-cluster.sh prepare"
stage "cluster and images" "$prepare" interruptible $prepare
chosen="(cluster or e2e) and not releases and not long"
if [ "${RFT_TEST_ONLY:-}" = long ]; then
  chosen=long
  [ $# -ne 0 ] || on_cluster+=(tests/trainer)
else
  echo "== the long tests do not run here: make test-long"
fi
RFT_FAILED_TESTS=$report/cluster stage "tests on the cluster" "" \
  interruptible $python -m pytest -m "$chosen" "${on_cluster[@]}" --durations=10 "$@"
if [ -n "$beside" ]; then
  cluster_down # nothing below needs it, and at rest it takes a quarter of a core
  [ $# -ne 0 ] || RFT_FAILED_TESTS=$report/vllm stage "tests of vLLM" "" \
    interruptible $python -m pytest -m "not long" $vllm --durations=10
  wait "$beside" || printf 'the half without a cluster ended early\tscripts/test.sh\n' >>"$report/stages"
  beside=
  cat "$log"
fi
cluster_down # before the summary, so that nothing follows it

[ -s "$report/stages" ] || exit 0
# A failed test stage has no command of its own, because its failed tests are listed. If none is listed, the stage
# ended before it could write their names.
setting=${RFT_CPU_DTYPE:+RFT_CPU_DTYPE=$RFT_CPU_DTYPE }
{
  echo "failed, with the command that runs it again alone:"
  while IFS=$'\t' read -r name again; do echo "  $name${again:+: $setting$again}"; done <"$report/stages"
  while read -r test; do echo "  $setting$python -m pytest $test"; done < <(cat "$report/unit" "$report/without" "$report/vllm" 2>/dev/null)
  while read -r test; do
    echo "  $prepare && $setting$python -m pytest $test"
  done < <(cat "$report/cluster" 2>/dev/null)
} >&2
exit 1
