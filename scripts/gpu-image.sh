#!/usr/bin/env bash
# Builds the trainer's image for GPUs, and checks on a machine without a GPU what can be checked there:
#
#   1. vLLM in the image parses every command line that the trainer can start it with
#   2. the trainer's tests pass with the versions of the image, on the CPU
#
# It is safe to interrupt. It leaves the image rft-trainer:gpu, and the environment of the tests in .cache/gpu-image.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/disk.sh
need_disk "${RFT_DISK_GIB:-40}" "make gpu-image" . /var/lib/containers "${XDG_CACHE_HOME:-$HOME/.cache}"

tag=rft-trainer:gpu
scripts/build-image.sh trainer --local --build-arg DEVICE=gpu --tag $tag

path="PYTHONPATH=/checkout:/checkout/operator:/checkout/trainer-image"
if docker image inspect $tag >/dev/null 2>&1; then
  docker run --rm --network none --volume "$PWD:/checkout:ro" --workdir /checkout --env "$path" --entrypoint python \
    $tag -m tests.gpu_image
else
  container=$(buildah from $tag)
  trap 'buildah rm "$container" >/dev/null' EXIT
  buildah run --isolation chroot --volume "$PWD:/checkout:ro" --workingdir /checkout --env "$path" "$container" -- \
    python -m tests.gpu_image
fi

environment=.cache/gpu-image
uv() { UV_LINK_MODE=hardlink .venv/bin/python -m uv "$@"; }
[ -x $environment/bin/python ] || uv venv --quiet --python "$(.venv/bin/python -c 'import sys; print(sys._base_executable)')" $environment
uv pip sync --quiet --python $environment/bin/python --require-hashes constraints-gpu.txt
.venv/bin/python - <<'PY' >$environment/dev.txt
import tomllib
from pathlib import Path

extras = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
print(*extras["dev"], *extras["cli"], *extras["operator"], sep="\n")
PY
uv pip install --quiet --python $environment/bin/python --constraint constraints-gpu.txt --requirement $environment/dev.txt
# Without vLLM's server, which needs a GPU here, and without what measures this machine's memory for the CPU's torch.
PYTHONPATH="$PWD/operator:$PWD/trainer-image" $environment/bin/python -m pytest tests/trainer -m "not vllm" \
  --deselect tests/trainer/test_host_memory.py "$@"
