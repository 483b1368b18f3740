# Sourced by scripts that install what can be done without: nothing here ends them.

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() { # never asks for a password: none of this is worth one
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

try_apt() {
  command -v apt-get >/dev/null || return 1
  {
    as_root apt-get -qq -o DPkg::Lock::Timeout=300 update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 \
      install -y --no-install-recommends "$@"
  } >build/apt.log 2>&1
}

has_any() {
  local name
  for name in "$@"; do ! command -v "$name" >/dev/null || return 0; done
  return 1
}
