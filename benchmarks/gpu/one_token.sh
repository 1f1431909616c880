#!/usr/bin/env bash
# Where the time of mode flash's one call goes, at 32K cached tokens and 300 new ones: taken apart by context, by new tokens, by what is asked
# for (log-probabilities, /v1/score), with and without EAGLE3's draft, by the calls' ids as JSON, by the radix tree's match, and by a profile of
# the GPU's kernels; and what HiCache brings back of a prefix that was evicted. MiniCPM4.1-8B's shape, random weights, fa3. Ends within 8 minutes.
# Results: $OUT/one-token.json.
source "$(dirname "$0")/common.sh"
begin "${RUN_S:-470}"

export SGLANG_TORCH_PROFILER_DIR=$GPU_ROOT/profiles
mkdir -p "$SGLANG_TORCH_PROFILER_DIR"
start eagle3 30001 "${EAGLE_ARGS[@]}" --attention-backend fa3 --max-total-tokens 200000
sleep 20 # each reads the card's free memory some 20 s after its start: not two at once
start plain 30002 --attention-backend fa3 --max-total-tokens 200000
sleep 20
# Room for two prefixes of 32K on the card and for ten in the host's memory.
start hicache 30003 --attention-backend fa3 --max-total-tokens 80000 --enable-hierarchical-cache --hicache-size 12

profile() { python3 -m benchmarks.gpu.one_token --results "$OUT/one-token.json" --profiles "$SGLANG_TORCH_PROFILER_DIR" "$@"; }
python3 -m benchmarks.gpu.one_token --results "$OUT/one-token.json" --name host --host-only
for name in eagle3:30001 plain:30002; do
  ready "${name%:*}" "${name#*:}" $(( $(left) > 150 ? $(left) - 130 : 20 )) && profile --url "http://127.0.0.1:${name#*:}" --name "${name%:*}"
done
stop eagle3; stop plain
ready hicache 30003 $(( $(left) > 60 ? $(left) - 45 : 15 )) && profile --url http://127.0.0.1:30003 --name hicache --hicache
say "one token is over"
