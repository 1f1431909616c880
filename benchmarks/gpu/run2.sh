#!/usr/bin/env bash
# Run 2: real decoding, nothing simulated, with the JSON grammar of the product's answer: 200 answers behind cached prefixes,
# 4 at once; then aborts and a client that disappears. Ends within 10 minutes. Results: $OUT/run2.json and run2-answers.jsonl.
source "$(dirname "$0")/common.sh"
begin "${RUN_S:-560}"
start eagle3 30001 "${EAGLE_ARGS[@]}"
ready eagle3 30001 $(( $(left) - 150 )) || exit 1
python3 -m benchmarks.gpu.run2 --url http://127.0.0.1:30001 --results "$OUT/run2.json"
stop eagle3
save_kernels
say "run 2 is over"
