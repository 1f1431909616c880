#!/usr/bin/env bash
# Structured output: real decoding, nothing simulated, with the JSON grammar of the product's answer: 200 answers behind cached prefixes,
# 4 at once; then aborts and a client that disappears. Ends within 10 minutes. Results: $OUT/structured_output.json and structured_output-answers.jsonl.
source "$(dirname "$0")/common.sh"
begin "${RUN_S:-560}"
start eagle3 30001 "${EAGLE_ARGS[@]}"
ready eagle3 30001 $(( $(left) - 150 )) || exit 1
python3 -m benchmarks.gpu.structured_output --url http://127.0.0.1:30001 --results "$OUT/structured_output.json"
stop eagle3
save_kernels
say "the structured-output run is over"
