#!/usr/bin/env bash
# Everything that `make demo` and `make test` need, from a bare Debian 12 / Ubuntu machine:
# compiler and Python by the system's package manager, .venv with gputap in it, native build.
# Idempotent: a second run does nothing that is already done.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
    say "need root for: $*"; say "install it by hand, then run make setup again"; return 1
  fi
}

apt_updated=
apt_install() {
  if ! command -v apt-get >/dev/null; then
    say "no apt-get here; please install the equivalents of: $*"; return 1
  fi
  [ -n "$apt_updated" ] || as_root apt-get update -qq >&2
  apt_updated=1
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

usable_python() {  # 3.10 or newer, with venv and pip
  "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

find_python() {
  local name
  for name in ${GPUTAP_PYTHON:-} python3.11 python3.12 python3.13 python3.10 python3; do
    if command -v "$name" >/dev/null && usable_python "$name"; then echo "$name"; return; fi
  done
  return 1
}

missing=()
command -v cc >/dev/null && command -v gcc >/dev/null || missing+=(gcc libc6-dev)
command -v c++ >/dev/null && command -v g++ >/dev/null || missing+=(g++)
command -v objcopy >/dev/null || missing+=(binutils)
find_python >/dev/null || missing+=(python3 python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
  say "installing ${missing[*]}"
  apt_install "${missing[@]}"
fi
python=$(find_python) || { say "no Python 3.10 or newer with venv found"; exit 1; }

stamp=.venv/.gputap-setup
wanted=$(cat pyproject.toml tools/setup.sh CMakeLists.txt | sha256sum | cut -d' ' -f1)
if [ "$(cat $stamp 2>/dev/null)" != "$wanted" ] || ! .venv/bin/python -c '' 2>/dev/null; then
  say "creating .venv with $($python --version) (a few minutes the first time)"
  [ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null || "$python" -m venv --clear .venv
  .venv/bin/python -m pip install -q --disable-pip-version-check --upgrade pip
  .venv/bin/python -m pip install -q --disable-pip-version-check 'cmake>=3.18' ninja 'scikit-build-core>=0.10'
  PATH="$PWD/.venv/bin:$PATH" .venv/bin/python -m pip install -q --disable-pip-version-check \
    --no-build-isolation -e '.[dev]'
  # torch is what targets, tests and the demo run; gputap itself never depends on it. The CPU build
  # is enough and small; the default index may serve several GB of CUDA instead.
  if ! .venv/bin/python -c 'import torch' 2>/dev/null; then
    cpu_index=https://download.pytorch.org/whl/cpu
    index=()
    if .venv/bin/python - "$cpu_index/torch/" <<'PY' 2>/dev/null
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=5).close()
PY
    then index=(--index-url "$cpu_index"); fi
    .venv/bin/python -m pip install -q --disable-pip-version-check "${index[@]}" torch==2.13.0 ||
      say "torch could not be installed: tests and demo that need it will say so"
  fi
  echo "$wanted" > $stamp
fi

PATH="$PWD/.venv/bin:$PATH" make --no-print-directory build
say "ready: .venv/bin/gputap"
