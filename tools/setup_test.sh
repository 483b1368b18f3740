#!/usr/bin/env bash
# What the tests use beyond `make setup`. Each part is optional: a missing one is said, and the
# tests that need it skip with the reason.
set -uo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }

if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then
  if command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; }; then
    say "installing chromium for the page tests"
    sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
    { $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 ||
      say "chromium could not be installed: the page tests will be skipped"
  else
    say "no chromium: the page tests will be skipped"
  fi
fi
exit 0
