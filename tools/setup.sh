#!/usr/bin/env bash
# Everything that `make demo` and `make test` need, from a bare Debian 12 / Ubuntu machine:
# compiler and Python by the system's package manager, .venv with gputap in it, native build.
# Idempotent: a second run does nothing that is already done.
#
# GPUTAP_PYTHON  the Python to use, where the first one found is not wanted
set -euo pipefail
cd "$(dirname "$0")/.."
# Settings for other environments would misdirect ours.
unset PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV

BACKEND='scikit-build-core>=1.1' # as in pyproject.toml
TORCH='torch==2.13.0'
TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
  say "$1"
  shift
  for line in "$@"; do printf '  %s\n' "$line" >&2; done
  exit 1
}

[ "$(uname -s)" = Linux ] || die "gputap runs on Linux; this is $(uname -s)."
[ "$(uname -m)" = x86_64 ] ||
  say "this machine is $(uname -m): captures can be read here, but attach needs x86-64"

mkdir -p build
if command -v flock >/dev/null; then # two at a time would install into one another
  exec 9>build/setup.lock
  flock 9
fi

# ------------------------------------------------------------------------- system packages

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

apt() { # a fresh machine may be updating itself: wait for it
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >&2
}

apt_install() {
  command -v apt-get >/dev/null ||
    die "there is no apt-get here; these are missing, by their Debian names: $*" \
      "Install what your system calls them, then run make setup again."
  [ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
    die "these packages are missing, and there is neither root nor sudo: $*" \
      "As root:  apt-get update && apt-get install -y --no-install-recommends $*" \
      "Then run make setup again."
  say "installing $*"
  apt update || say "apt-get update failed; going on with the package lists as they are"
  apt install -y --no-install-recommends "$@" ||
    die "apt-get could not install: $*" "Its reasons are above. Run make setup again afterwards."
}

compiles() { # compiler language
  printf '#include <stdio.h>\nint main() { return 0; }\n' |
    "$1" -x "$2" - -o /dev/null 2>/dev/null
}

runs() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }
has_venv() { "$1" -c 'import venv, ensurepip' 2>/dev/null; }

new_pythons() { # every Python here that is new enough, the preferred one first
  local name
  for name in ${GPUTAP_PYTHON:-python3.11 python3.12 python3.13 python3.10 python3 /usr/bin/python3}; do
    if command -v "$name" >/dev/null && runs "$name"; then echo "$name"; fi
  done
}

find_python() {
  local name
  for name in $(new_pythons); do
    if has_venv "$name"; then
      echo "$name"
      return
    fi
  done
  return 1
}

missing=()
command -v gcc >/dev/null && compiles cc c || missing+=(gcc libc6-dev)
compiles c++ c++ || missing+=(g++)
command -v readelf >/dev/null || missing+=(binutils)
# Without certificates the system's package indexes by https cannot be asked.
[ -e /etc/ssl/certs/ca-certificates.crt ] || [ -d /etc/pki/tls ] || missing+=(ca-certificates)
if ! find_python >/dev/null; then
  read -r python < <(new_pythons) || python=none
  case $python in
    none) # one that is too old would not become newer by this
      [ -n "${GPUTAP_PYTHON:-}" ] || [ -x /usr/bin/python3 ] || missing+=(python3 python3-venv)
      ;;
    python3 | python3.* | /usr/bin/python3) missing+=("$(basename "$python")-venv") ;; # packed apart
  esac
fi
[ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
if ! python=$(find_python); then
  found=$(python3 --version 2>/dev/null || echo 'no python3')
  die "gputap needs Python 3.10 or newer with venv; found ${GPUTAP_PYTHON:-$found}." \
    "Install one, for example by  uv python install 3.12 , and name it:" \
    "GPUTAP_PYTHON=/path/to/python3.12 make setup"
fi

# ----------------------------------------------------------------------------------- .venv

works() { .venv/bin/python -c '' 2>/dev/null; }
pip() { .venv/bin/python -m pip "$1" -q --disable-pip-version-check "${@:2}"; }

[ ! -e .venv ] || [ -w .venv ] ||
  die "$PWD/.venv belongs to $(stat -c %U .venv)." "Remove it, or run make setup as that user."

stamp=.venv/.gputap-setup
# The path is in it too: what pip writes into .venv does not survive a move.
wanted=$({
  pwd
  cat pyproject.toml tools/setup.sh
} | sha256sum | cut -d' ' -f1)
if [ "$(cat $stamp 2>/dev/null)" != "$wanted" ] || ! works; then
  moved=
  [ "$(cat .venv/.gputap-path 2>/dev/null || pwd)" = "$PWD" ] || moved=yes
  if [ -n "$moved" ] || ! works || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    say "creating .venv with $("$python" --version) (a few minutes the first time)"
    "$python" -m venv --clear .venv
  else
    say "bringing .venv up to date"
  fi
  pwd >.venv/.gputap-path
  pip install --upgrade pip
  pip install 'cmake>=3.18' ninja "$BACKEND"
  # The native parts come from `make build` below, not from pip as well.
  pip install --no-build-isolation --config-settings wheel.cmake=false -e '.[dev]'
  echo "$wanted" >$stamp
fi

# torch is what targets, tests and the demo run; gputap itself never depends on it. The CPU build
# is enough and small; the default index may serve several GB of CUDA instead.
if ! .venv/bin/python -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("torch"))'; then
  say "installing $TORCH (CPU build)"
  index=()
  if .venv/bin/python -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=10)' \
    "$TORCH_CPU_INDEX/torch/" 2>/dev/null; then
    index=(--index-url "$TORCH_CPU_INDEX")
  fi
  pip install "${index[@]}" "$TORCH" ||
    say "torch could not be installed: tests and demo that need it will say so"
fi

# ---------------------------------------------------------------------------- native parts

PATH="$PWD/.venv/bin:$PATH" "${MAKE:-make}" --no-print-directory build
say "ready: .venv/bin/gputap"
