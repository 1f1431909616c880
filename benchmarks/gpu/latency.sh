#!/usr/bin/env bash
# Latency: MiniCPM4.1-8B's shape, dummy weights, EAGLE3 3/1/4 on flashinfer with the acceptance forced to 2.5, beside the same
# without EAGLE3. Ends within 10 minutes. Results: $OUT/latency.json, logs beside it.
# Both servers start at the same time, since compiling kernels is most of the start; they are measured one after the other.
source "$(dirname "$0")/common.sh"
begin "${RUN_S:-560}"

SGLANG_SIMULATE_ACC_LEN=2.5 SGLANG_SIMULATE_ACC_TOKEN_MODE=real-draft-token start eagle3 30001 "${EAGLE_ARGS[@]}"
eagle_up=1
plain_up=1
sleep 20 # the first server has by then read the card's memory, which it does not share out evenly when both ask at once
start plain 30002
ready eagle3 30001 400 || eagle_up=0
# A server that still compiles would be measured by the other one's clock: wait, but not for ever.
ready plain 30002 $(( $(left) > 330 ? $(left) - 240 : 90 )) || { plain_up=0; stop plain; }

if [ "$eagle_up" = 1 ]; then
  python3 -m benchmarks.gpu.latency --url http://127.0.0.1:30001 --name eagle3 --results "$OUT/latency.json"
  stop eagle3
fi
if [ "$plain_up" = 0 ] && [ "$(left)" -gt 150 ]; then
  start plain 30002
  ready plain 30002 $(( $(left) - 60 )) && plain_up=1
fi
if [ "$plain_up" = 1 ]; then
  python3 -m benchmarks.gpu.latency --url http://127.0.0.1:30002 --name plain --results "$OUT/latency.json"
  stop plain
fi
save_kernels
say "the latency run is over"
