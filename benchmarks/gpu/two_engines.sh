#!/usr/bin/env bash
# Two GPUs, one service: mode flash with one worker beside one engine, and with two workers of one group beside two engines, each on a card of its own, at
# the same bars a second and at twice as many. 32K tokens of context, 3 permits a worker. MiniCPM4.1-8B's shape with LongRoPE factors, random
# weights, preset h100 (fa3, EAGLE3 3/1/4). Ends within 7 minutes. Results: $OUT/two-engines.json, a line for each trigger beside it.
source "$(dirname "$0")/common.sh"
begin "${RUN_S:-400}"

python3 -m benchmarks.gpu.models --model "$GPU_ROOT/long" --draft "$GPU_ROOT/long-draft" --longrope
for card in 0 1; do
  CUDA_VISIBLE_DEVICES=$card setsid python3 -c 'from services.cli.engine import app; app()' serve --preset h100 --model-path "$GPU_ROOT/long" \
    --draft-path "$DRAFT" --port "3000$card" --permits 1 --no-rewarm --ready-file "$OUT/engine-$card.ready" -- --load-format dummy \
    --random-seed 7 --max-total-tokens 420000 > "$OUT/engine-$card.log" 2>&1 &
  SERVER_PID[engine-$card]=$!
  say "engine-$card starts (pid ${SERVER_PID[engine-$card]})"
  sleep 10
done
for card in 0 1; do
  ready "engine-$card" "3000$card" $(( $(left) - 150 )) || exit 1
  while [ ! -e "$OUT/engine-$card.ready" ] && [ "$(left)" -gt 150 ]; do sleep 1; done; say "engine-$card is warm"
done

worker() { python3 -m benchmarks.gpu.record_to_signal --results "$OUT/two-engines.json" --mode flash "$@"; }
one=http://127.0.0.1:30000 two=http://127.0.0.1:30001
worker --name one --url "$one" --rates 12:15 24:8
worker --name two --url "$one" "$two" --rates 12:15 24:15
say "two engines are over"
