#!/usr/bin/env bash
# Run 3 (b) once more, at the rates that a card carries and long enough for every symbol to change its epoch: is a switch visible?
# Acceptance forced to 2.5; each answer is held to the length of one of run 3 (a)'s, from results/run3.json.
# Results: $OUT/run3.json, part `epochs`, and $OUT/run3-epochs.jsonl.
source "$(dirname "$0")/common.sh"
begin "${RUN_S:-330}"
SGLANG_SIMULATE_ACC_LEN=2.5 SGLANG_SIMULATE_ACC_TOKEN_MODE=real-draft-token start forced 30002 "${EAGLE_ARGS[@]}"
ready forced 30002 $(( $(left) - 150 )) || exit 1
cp "$HERE/results/run3.json" "$OUT/run3.json"
read -r -a rates <<< "${RATES:-4:70 2:60}"
python3 -m benchmarks.gpu.run3 --url http://127.0.0.1:30002 --name epochs --lengths-from grammar --results "$OUT/run3.json" --rates "${rates[@]}"
stop forced
say "run 3, epochs, is over"
