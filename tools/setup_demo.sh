#!/usr/bin/env bash
# What the simulated GPU is built with beyond `make setup`: the headers of the Python that torch runs
# on. torch.compile needs them, too.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

source tools/optional.bash

mkdir -p build
include=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
if [ ! -e "$include/Python.h" ]; then
  python=$(.venv/bin/python -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
  say "installing $python-dev for the simulated GPU"
  try_apt "$python-dev" || say "$python-dev could not be installed: no simulated GPU, and its tests will be skipped"
fi
