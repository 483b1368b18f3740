#!/usr/bin/env bash
# What the tests use beyond `make setup`. Each part is optional: a missing one is said, and the
# tests that need it skip with the reason.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

source tools/optional.bash

mkdir -p build
if ! has_any chromium chromium-browser google-chrome google-chrome-stable; then
  say "installing chromium for the page tests"
  try_apt chromium || say "chromium could not be installed: the page tests will be skipped"
fi
if ! has_any strace; then
  try_apt strace || say "strace could not be installed: one test will be skipped"
fi
tools/setup_demo.sh

# CPython 3.14 takes scripts from other processes. Where the system has none, in a root of its own.
root=build/roots/python3.14
if ! has_any python3.14 && [ ! -x $root/usr/bin/python3.14 ]; then
  say "installing CPython 3.14 into $root"
  rm -rf "$root"
  mkdir -p "${root%/*}"
  suite=(forky "$root" http://deb.debian.org/debian sid)
  if grep -q '^ID=ubuntu' /etc/os-release 2>/dev/null; then # an old Ubuntu lacks Debian's keys
    suite=(resolute "$root" http://archive.ubuntu.com/ubuntu gutsy)
    suite+=(--keyring=/usr/share/keyrings/ubuntu-archive-keyring.gpg)
  fi
  has_any debootstrap || try_apt debootstrap debian-archive-keyring
  as_root debootstrap --variant=minbase --include=python3.14 "${suite[@]:4}" "${suite[@]:0:4}" \
    >build/debootstrap.log 2>&1 ||
    {
      rm -rf "$root"
      say "CPython 3.14 could not be installed: its tests will be skipped"
    }
fi
exit 0
