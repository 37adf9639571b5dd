#!/usr/bin/env bash
# Runs every test and closes with one line that counts them all.
set -uo pipefail
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
status=0
# Time for each fuzz target: more than anybody waits for between two edits.
export HEADWATER_FUZZ_SECONDS="${HEADWATER_FUZZ_SECONDS:-60}"
# The end-to-end suite comes last and alone: it starts servers and kills processes, and wants the machine for itself.
# Both runs share one set of features, so that nothing is built twice.
for which in "--exclude headwater-tests --lib --bins --tests" "--test structure --test guarantees"; do
  # shellcheck disable=SC2086
  cargo test --workspace --features headwater/failpoints --no-fail-fast $which 2>&1 | tee -a "$log"
  [ "${PIPESTATUS[0]}" = 0 ] || status=1
done
awk '/^test result:/{for(i=1;i<=NF;i++){if($i~/^passed/)p+=$(i-1); if($i~/^failed;/)f+=$(i-1); if($i~/^ignored/)s+=$(i-1)}}
     END{printf "%d passed, %d failed, %d skipped\n", p, f, s}' "$log"
exit "$status"
