#!/usr/bin/env bash
# Looks at what constraints.txt pins, with tools in an environment of their own.
#
#   scripts/audit.sh audit     asks PyPI for known vulnerabilities; fails for any, and for a package that it cannot judge
#   scripts/audit.sh sbom      writes dist/sbom.json: every package with version and hashes, as CycloneDX
set -euo pipefail
cd "$(dirname "$0")/.."

tools=.cache/audit
if [ ! -f "$tools/.installed" ]; then
  rm -rf "$tools"
  python3 -m venv "$tools"
  "$tools/bin/python" -m pip install --quiet --disable-pip-version-check "pip-audit==2.10.1" "cyclonedx-bom==7.5.0"
  touch "$tools/.installed"
fi

case ${1:?usage: audit.sh audit|sbom} in
  # Without --strict a package that the service does not know counts as one without vulnerabilities.
  audit) "$tools/bin/pip-audit" --strict --no-deps --disable-pip --progress-spinner off --requirement constraints.txt ;;
  sbom)
    mkdir -p dist
    { grep '^torch==' constraints.txt; cat constraints-hashes.txt; } \
      | "$tools/bin/cyclonedx-py" requirements --pyproject pyproject.toml --output-reproducible \
        --output-format JSON --output-file dist/sbom.json -
    ;;
  *) echo "no audit is called $1: audit or sbom" >&2; exit 2 ;;
esac
