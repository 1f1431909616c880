#!/usr/bin/env bash
# The tuner's table, by `aquiline engine tune` itself: the engine is started anew for each combination. Weights are random,
# so what is accepted says nothing here; the time of a step does, at each draft's shape. Ends within 10 minutes.
# Results: $OUT/tuned/ (tuned.json, tuned.toml, tuned.png); combinations that no longer fit are not tried.
source "$(dirname "$0")/common.sh"
begin "${RUN_S:-565}"
COLUMNS=170 python3 -c 'from services.cli.engine import app; app()' tune --preset h100 --model-path "$MODEL" --draft-path "$DRAFT" \
  --out "$OUT/tuned" --steps "${STEPS:-2,5}" --topk "${TOPK:-1,4}" --draft-tokens 8 --windows "${WINDOWS:-0}" \
  --lengths 8192,32768 --at-once 1,3,8 --rounds 3 --budget-s "$(( $(left) - 15 ))" \
  -- --load-format dummy --max-total-tokens 560000 --random-seed 7 2> >(tee "$OUT/engines.log" | grep -v '^\[20' >&2)
say "the tuner run is over"
