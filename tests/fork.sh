#!/usr/bin/env bash
# Tests on the maintained fork of OpenMMLab, in an environment of its own: the fork has other distribution names and the
# same import names.
#
#   bash tests/fork.sh [FOLDER]            of the environment; .venv-fork if none is given
#   FORK_OPS=1 bash tests/fork.sh          with mmcv's compiled operators, in .venv-fork-ops: takes a compiler, and long
#   FORK_TESTS=tests/test_cli.py bash tests/fork.sh
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${1:-.venv-fork${FORK_OPS:+-ops}}
mmengine=onedl-mmengine==0.10.12
mmcv=onedl-mmcv==2.3.6
mmseg=onedl-mmsegmentation==1.4.2
default="test_openmmlab test_mmcv_ops test_backbone test_checkpoint test_record test_config test_training"
read -ra tests <<< "${FORK_TESTS:-$(printf 'tests/%s.py ' $default)}"

python=$venv/bin/python
installed=$venv/.installed
pip() { "$python" -m pip "$@"; }
install() { pip install --quiet --constraint constraints.txt "$@"; }

if ! [ "$installed" -nt pyproject.toml ] || ! [ "$installed" -nt tests/fork.sh ]; then
  echo "installing the fork into $venv: some minutes, and several GB for PyTorch"
  "${PYTHON:-python3}" -m venv "$venv"
  # What pyproject.toml asks for, except for mmengine: the original and its fork overwrite each other's files.
  mapfile -t requirements < <("$python" -c '
import re, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
asked = project["dependencies"] + extras["export"] + [name for name in extras["dev"] if name.startswith("pytest")]
print(*(name for name in asked if re.match(r"[\w-]+", name)[0] != "mmengine"), sep="\n")
')
  install "${requirements[@]}" "$mmengine"
  files=$(mktemp -d)
  trap 'rm -rf "$files"' EXIT
  # Built by itself, where there is no torch, mmcv is pure Python and takes seconds. pip's cache would mix up the two.
  if [ -n "${FORK_OPS:-}" ]; then
    install "setuptools>=80" wheel ninja psutil
    pip download --quiet --no-deps --no-binary :all: --no-build-isolation --dest "$files" "$mmcv"
    tar -xzf "$files"/*.tar.gz -C "$files"
    sed -i 's/-std=c++17/-std=c++20/' "$files"/*/setup.py  # which torch asks for from 2.14 on
    MAX_JOBS=${MAX_JOBS:-$(nproc)} install --no-cache-dir --no-build-isolation "$files"/*/
  else
    install --no-cache-dir "$mmcv"
  fi
  install "$mmseg"
  install --no-deps --editable .
  "$python" -c "import cv2" 2> /dev/null || make --no-print-directory headless VENV="$venv"
  # This release of mmsegmentation comes without configs; the original's are used.
  pip download --quiet --no-deps --dest "$files" mmsegmentation==1.2.2
  "$python" -c '
import importlib.util, sys, zipfile
(package,) = importlib.util.find_spec("mmseg").submodule_search_locations
wheel = zipfile.ZipFile(sys.argv[1])
wheel.extractall(package + "/..", [name for name in wheel.namelist() if name.startswith("mmseg/.mim/configs/")])
' "$files"/*.whl
  touch "$installed"
fi

pip list 2> /dev/null | grep -E "^(onedl-|mm|torch )"
if pip list 2> /dev/null | grep -E "^(mmengine|mmcv|mmcv-lite|mmsegmentation) "; then
  echo "the original is in $venv beside its fork: remove the folder, and start again" >&2
  exit 1
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
"$python" -m pytest -p no:cacheprovider "${tests[@]}"
