#!/usr/bin/env bash
# Mode flash beside mode fast, record to published, at 32K tokens of context and 3 permits; and LongRoPE in stock operations beside the plug-in's
# one table. MiniCPM4.1-8B's shape with LongRoPE factors, random weights, preset h100 (fa3, EAGLE3 3/1/4). With the acceptance of
# `fast` forced to 2.5, a given line takes each answer's place. Ends within 10 minutes.
# Results: $OUT/flash.json, a line for each trigger in $OUT/record_to_signal-NAME.jsonl; $OUT/long-context.json.
source "$(dirname "$0")/common.sh"
begin "${RUN_S:-580}"

# serve NAME PORT [ARGUMENTS OF SGLANG]: variables set in front of the call reach the engine.
serve() {
  local name=$1 port=$2
  shift 2
  setsid python3 -c 'from services.cli.engine import app; app()' serve --preset h100 --model-path "$GPU_ROOT/long" --draft-path "$DRAFT" \
    --port "$port" --permits 1 --no-rewarm --ready-file "$OUT/$name.ready" -- --load-format dummy --random-seed 7 \
    --max-total-tokens 420000 "$@" > "$OUT/$name.log" 2>&1 &
  SERVER_PID[$name]=$!
  say "$name starts on port $port (pid ${SERVER_PID[$name]}): $*"
}

python3 -m benchmarks.gpu.models --model "$GPU_ROOT/long" --draft "$GPU_ROOT/long-draft" --longrope
serve fused 30001
sleep 20 # each reads the card's free memory some 20 s after its start: not two at once
# Not by the launcher, which warms the grammar: forced tokens bypass it, and the engine ends such a call.
SGLANG_SIMULATE_ACC_LEN=2.5 SGLANG_SIMULATE_ACC_TOKEN_MODE=real-draft-token start forced 30002 "${EAGLE_ARGS[@]}" \
  --model-path "$GPU_ROOT/long" --attention-backend fa3 --max-total-tokens 420000
if [ "${STOCK:-1}" = 1 ]; then
  sleep 20
  AQUILINE_FUSED_LONGROPE=0 serve stock 30003
fi
ready fused 30001 $(( $(left) - 200 )) || exit 1
warm_up() { while [ ! -e "$OUT/$1.ready" ] && [ "$(left)" -gt 150 ]; do sleep 1; done; say "$1 is warm"; }
warm_up fused; ready forced 30002 60
[ "${STOCK:-1}" = 1 ] && warm_up stock

worker() { python3 -m benchmarks.gpu.record_to_signal --results "$OUT/flash.json" "$@"; }
worker --url http://127.0.0.1:30001 --name flash --mode flash --rates 4:25 12:15
worker --url http://127.0.0.1:30001 --name grammar --mode fast --rates 2:8
worker --url http://127.0.0.1:30002 --name fast --mode fast --answer 'buy 62 5 2 -12 25' --rates 2:15 6:12
stop forced
for name in stock:30003 fused:30001; do
  [ "$(left)" -gt 45 ] && python3 -m benchmarks.gpu.long_context --url "http://127.0.0.1:${name#*:}" --name "${name%:*}" --lengths 32768 --results "$OUT/long-context.json"
done
say "flash is over"
