#!/usr/bin/env bash
# Checks the chart with six sets of values by checkov, which gets an environment of its own. Needs helm, and PyPI once.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=.cache/checkov
if [ ! -f "$tools/.installed" ]; then
  rm -rf "$tools"
  python3 -m venv "$tools"
  "$tools/bin/python" -m pip install --quiet --disable-pip-version-check "checkov==3.3.30"
  touch "$tools/.installed"
fi
.venv/bin/python -m tests.chart_audit "$tools/bin/checkov"
