# Sourced by scripts that start a test cluster. It uses ready programs of a current Kubernetes if they are available, so
# that nothing has to be built. Environment variables that are already set are not changed.
#
#   RFT_TEST_PROGRAMS    a folder with unpack.sh, and kind/engine-up.sh, engine-down.sh, node-image.sh; usually
#                        ../shared/kubernetes, beside the checkout
#   RFT_TEST_CLUSTER     kind, node or old: selects the kind of cluster (tests/cluster/provider.py). With node and old
#                        no Docker engine is started; with old no ready programs are used
ready_programs=${RFT_TEST_PROGRAMS:-../shared/kubernetes}
started_engine=no

# Sets KUBEBUILDER_ASSETS, and adds its folder, which contains kind, to the PATH.
use_ready_programs() {
  [ -z "${RFT_TEST_KUBECONFIG:-}" ] && [ "${RFT_TEST_CLUSTER:-}" != old ] || return 0
  if [ -z "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$ready_programs/unpack.sh" ]; then
    local cache=${RFT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rft-operator}
    KUBEBUILDER_ASSETS=$("$ready_programs/unpack.sh" "$cache/ready-programs") && export KUBEBUILDER_ASSETS
  fi
  PATH=$PATH${KUBEBUILDER_ASSETS:+:$KUBEBUILDER_ASSETS}
}

# Sets only RFT_KUEUE_CHART, for benchmarks that run Kueue as a local process.
use_ready_chart() {
  local charts=("$ready_programs"/charts/kueue-*.tgz)
  [ -n "${RFT_KUEUE_CHART:-}" ] || [ ! -f "${charts[0]}" ] || export RFT_KUEUE_CHART=${charts[0]}
}

# Sets RFT_KUEUE_CHART, RFT_KUEUE_IMAGE and RFT_KUEUE_ARCHIVE, from which the tests install Kueue.
use_ready_kueue() {
  [ -z "${RFT_TEST_KUBECONFIG:-}${RFT_KUEUE_CHART:-}" ] && [ "${RFT_TEST_CLUSTER:-}" != old ] || return 0
  local charts=("$ready_programs"/charts/kueue-*.tgz)
  [ -f "${charts[0]}" ] && [ -x "${KUBEBUILDER_ASSETS:-}/kueue" ] || return 0
  local version=${charts[0]##*/kueue-} archive=$KUBEBUILDER_ASSETS/kueue.tar
  version=${version%.tgz}
  python3 "$ready_programs/image.py" "$archive" "localhost/kueue:v$version=65532:65532" \
    "$KUBEBUILDER_ASSETS/kueue:/manager" || return 0
  export RFT_KUEUE_CHART=${charts[0]} RFT_KUEUE_IMAGE=localhost/kueue:v$version RFT_KUEUE_ARCHIVE=$archive
}

# Starts a Docker engine if none answers, and sets RFT_KIND_NODE_IMAGE. If that fails no engine runs, so the tests do
# not use kind.
start_engine() {
  [ -z "${RFT_TEST_KUBECONFIG:-}" ] && [ "${RFT_TEST_CLUSTER:-kind}" = kind ] || return 0
  [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$ready_programs/kind/engine-up.sh" ] || return 0
  if ! docker info >/dev/null 2>&1; then
    started_engine=yes # set before the start, so that an interrupt stops the engine too
    "$ready_programs/kind/engine-up.sh" || { end_engine; return 0; }
  fi
  [ -z "${RFT_KIND_NODE_IMAGE:-}" ] || return 0
  RFT_KIND_NODE_IMAGE=$("$ready_programs/kind/node-image.sh" "$KUBEBUILDER_ASSETS") && export RFT_KIND_NODE_IMAGE ||
    end_engine
}

# Stops the engine if start_engine has started it.
end_engine() {
  [ "$started_engine" = yes ] || return 0
  started_engine=no
  for _ in $(seq 40); do # an engine that is starting cannot be stopped yet
    pgrep -x dockerd >/dev/null && ! docker info >/dev/null 2>&1 || break
    sleep 0.5
  done
  "$ready_programs/kind/engine-down.sh"
}
