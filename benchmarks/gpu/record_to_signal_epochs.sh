#!/usr/bin/env bash
# Part (b) of record_to_signal.sh once more, at the rates that a card carries and long enough for every symbol to change its epoch: is a switch visible?
# Acceptance forced to 2.5; a given line takes each answer's place.
# Results: $OUT/record_to_signal.json, part `epochs`, and $OUT/record_to_signal-epochs.jsonl.
source "$(dirname "$0")/common.sh"
begin "${RUN_S:-330}"
SGLANG_SIMULATE_ACC_LEN=2.5 SGLANG_SIMULATE_ACC_TOKEN_MODE=real-draft-token start forced 30002 "${EAGLE_ARGS[@]}"
ready forced 30002 $(( $(left) - 150 )) || exit 1
read -r -a rates <<< "${RATES:-4:70 2:60}"
python3 -m benchmarks.gpu.record_to_signal --url http://127.0.0.1:30002 --name epochs --answer 'buy 62 5 2 -12 25' --results "$OUT/record_to_signal.json" --rates "${rates[@]}"
stop forced
say "the record-to-signal run, epochs, is over"
