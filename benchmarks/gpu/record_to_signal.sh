#!/usr/bin/env bash
# Record to signal: the worker itself beside the engine on one host, real bars at stated rates, 32K tokens of context, 3 permits, sliced
# pre-warming: (a) with the answer's grammar at natural acceptance, (b) with the acceptance forced to 2.5, where no answer parses
# and a given line takes its place. Then structured_output once more, on (a)'s server.
# Ends within 10 minutes. Results: $OUT/record_to_signal.json, a line for each trigger in $OUT/record_to_signal-NAME.jsonl; $OUT/structured_output.json.
source "$(dirname "$0")/common.sh"
begin "${RUN_S:-560}"
start eagle3 30001 "${EAGLE_ARGS[@]}"
sleep 15 # the first server has by then read the card's memory, which it does not share out evenly when both ask at once
SGLANG_SIMULATE_ACC_LEN=2.5 SGLANG_SIMULATE_ACC_TOKEN_MODE=real-draft-token start forced 30002 "${EAGLE_ARGS[@]}"
ready eagle3 30001 $(( $(left) - 200 )) || exit 1
ready forced 30002 90 || stop forced
python3 -m benchmarks.gpu.record_to_signal --url http://127.0.0.1:30001 --name grammar --results "$OUT/record_to_signal.json"
python3 -m benchmarks.gpu.record_to_signal --url http://127.0.0.1:30002 --name forced --answer 'buy 62 5 2 -12 25' --results "$OUT/record_to_signal.json" \
  --rates 1:30 2:25 4:25 6:20 8:15 12:8
stop forced
[ "$(left)" -gt 75 ] && python3 -m benchmarks.gpu.structured_output --url http://127.0.0.1:30001 --results "$OUT/structured_output.json"
stop eagle3
say "the record-to-signal run is over"
