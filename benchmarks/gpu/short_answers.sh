#!/usr/bin/env bash
# Short answers and slices that wait, record to published, at 32K tokens of context and 3 permits: mode fast on one line with the acceptance
# forced to 2.5 (a given line takes the place of the noise, once the engine has made its tokens), mode flash, each with slices of pre-warming
# that wait for decisions and with slices that do not; the same line under its regular expression at natural acceptance; a rationale after the
# signal. MiniCPM4.1-8B's shape with LongRoPE factors, random weights, preset h100 (fa3, EAGLE3 3/1/4). Ends within 8 minutes.
# Results: $OUT/short-answers.json, a line for each trigger in $OUT/record_to_signal-NAME.jsonl.
source "$(dirname "$0")/common.sh"
begin "${RUN_S:-470}"

python3 -m benchmarks.gpu.models --model "$GPU_ROOT/long" --draft "$GPU_ROOT/long-draft" --longrope
setsid python3 -c 'from services.cli.engine import app; app()' serve --preset h100 --model-path "$GPU_ROOT/long" --draft-path "$DRAFT" \
  --port 30001 --permits 1 --no-rewarm --ready-file "$OUT/natural.ready" -- --load-format dummy --random-seed 7 \
  --max-total-tokens 420000 > "$OUT/natural.log" 2>&1 &
SERVER_PID[natural]=$!
sleep 20 # each reads the card's free memory some 20 s after its start: not two at once
# Not by the launcher, which warms the grammar: forced tokens bypass it, and the engine ends such a call.
SGLANG_SIMULATE_ACC_LEN=2.5 SGLANG_SIMULATE_ACC_TOKEN_MODE=real-draft-token start forced 30002 "${EAGLE_ARGS[@]}" \
  --model-path "$GPU_ROOT/long" --attention-backend fa3 --max-total-tokens 420000
ready natural 30001 $(( $(left) - 200 )) || exit 1
while [ ! -e "$OUT/natural.ready" ] && [ "$(left)" -gt 200 ]; do sleep 1; done; say "natural is warm"
ready forced 30002 60

worker() { python3 -m benchmarks.gpu.record_to_signal --results "$OUT/short-answers.json" "$@"; }
line='buy 62 5 2 -12 25'
worker --url http://127.0.0.1:30002 --name fast --mode fast --answer "$line" --rates 2:20 6:16 2:15:free 6:16:free
worker --url http://127.0.0.1:30001 --name flash --mode flash --rates 4:20 12:12 4:15:free 12:12:free
[ "$(left)" -gt 65 ] && worker --url http://127.0.0.1:30002 --name explained --mode fast --answer "$line" --rationale short --rates 6:12
stop forced
[ "$(left)" -gt 55 ] && worker --url http://127.0.0.1:30001 --name grammar --mode fast --rates 2:8
# The actions' probabilities beside each answer: last, since a fault of the engine would end it.
[ "$(left)" -gt 50 ] && worker --url http://127.0.0.1:30001 --name scored --mode fast --scores --rates 2:6
say "short answers are over"
