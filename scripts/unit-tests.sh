#!/usr/bin/env bash
# Runs the unit tests. Fails if a test fails, or if they run fewer than 98 % of the lines of the code that decides and
# does no I/O.
#
#   scripts/unit-tests.sh [PYTEST-OPTION...]
#
# slipcover instruments only the files below. The package coverage, on Python 3.11, traces every call of the process,
# and so took as much time as the tests themselves.
set -euo pipefail
cd "$(dirname "$0")/.."

source=operator/rft_api,operator/rft_run,operator/rft_planner,operator/rft_advice,operator/rft_codegen,operator/rft_operator
with_io=(
  __main__.py cluster.py controller.py events.py handlers.py health.py "ingest/*" leadership.py listener.py logs.py
  metrics.py nodes.py operator.py queue.py running.py threads.py tls.py tls_secret.py watches.py "webhook/*"
  workloads.py
)
omit=$(printf '*/rft_operator/%s,' "${with_io[@]}")

# pytest cannot rewrite the assertions of slipcover's plugin, as slipcover is loaded before it.
exec .venv/bin/python -m slipcover --source "$source" --omit "${omit%,}" --fail-under 98 --skip-covered -m \
  pytest tests/unit -W ignore::pytest.PytestAssertRewriteWarning "$@"
