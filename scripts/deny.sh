#!/usr/bin/env bash
# Licences, duplicate versions and sources of every dependency, by deny.toml. cargo-deny is used where it is installed;
# HEADWATER_INSTALL_DENY=1 installs it first (some minutes of compiling). The licence allow-list and the bans are also a
# test of tests/ that needs nothing installed, so that no build goes without it.
set -euo pipefail
if ! cargo deny --version >/dev/null 2>&1; then
  if [ "${HEADWATER_INSTALL_DENY:-0}" = 1 ]; then
    cargo install --locked --quiet cargo-deny
  else
    echo "lint: cargo-deny is not installed; licences, sources and bans are checked by tests/tests/structure.rs (HEADWATER_INSTALL_DENY=1 installs it)"
    exit 0
  fi
fi
cargo deny --log-level warn check licenses bans sources
