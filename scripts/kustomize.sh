#!/usr/bin/env bash
# Writes charts/gitops/base/operator.yaml: the chart with its default values, without the CRD and the test of `helm test`.
# With --check it writes nothing, and fails if the file is out of date. Needs helm.
set -euo pipefail
cd "$(dirname "$0")/.."

target=charts/gitops/base/operator.yaml
rendered() {
  echo "# Rendered from charts/rft-operator by scripts/kustomize.sh. Do not edit."
  helm template rft-operator charts/rft-operator --namespace rft-system --set crds.install=false --skip-tests |
    sed -e '/^# Source: /d' -e 's/^\( *app.kubernetes.io\/managed-by:\) Helm$/\1 kustomize/' -e 's/[[:space:]]*$//'
}
if [ "${1:-}" = --check ]; then
  diff <(rendered) "$target"
else
  rendered > "$target"
fi
