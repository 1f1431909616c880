#!/usr/bin/env bash
# bfloat16, FP8 weights, FP8 weights and KV cache, and a GPTQ checkpoint of 4 bits side by side at 32K tokens, and one round of the worker's contract
# (benchmarks/gpu/contract.py) with each. MiniCPM4.1-8B's shape, random weights, EAGLE3 3/1/4 on fa3 at its natural acceptance of noise: the time of a
# step is what counts. Every engine is started by `aquiline engine serve`; they are measured one after the other, none before all are warm, since a
# start takes the cores and the card from who is measured. Ends within 8 minutes. Results: $OUT/quantized.json, $OUT/contract.json, logs beside them.
#   NAMES="plain fp8 gptq"    fewer engines
source "$(dirname "$0")/common.sh"
begin "${RUN_S:-475}"
NAMES=${NAMES:-plain fp8 fp8-kv gptq}

python3 -m benchmarks.gpu.models --model "$GPU_ROOT/packed" --draft "$GPU_ROOT/packed-draft" --gptq
# Presets that differ in one thing: what the weights, or weights and KV cache, are stored in.
sed '/^kv_cache_dtype/d' "$REPO/deploy/engine/h100-fp8.toml" > "$GPU_ROOT/fp8.toml"
cp "$REPO/deploy/engine/h100-fp8.toml" "$GPU_ROOT/fp8-kv.toml"
cp "$REPO/deploy/engine/h100.toml" "$GPU_ROOT/plain.toml"
sed 's/^schedule_policy = .*/&\nquantization = "gptq_marlin"/' "$REPO/deploy/engine/h100.toml" > "$GPU_ROOT/gptq.toml"

declare -A PORT=([plain]=30001 [fp8]=30002 [fp8-kv]=30003 [gptq]=30004)
for name in $NAMES; do
  folder=model
  [ "$name" = gptq ] && folder=packed
  # Idle engines sleep: their polling would take cores from the one that is measured.
  setsid python3 -c 'from services.cli.engine import app; app()' serve --preset "$GPU_ROOT/$name.toml" --model-path "$GPU_ROOT/$folder" \
    --draft-path "$DRAFT" --port "${PORT[$name]}" --permits 3 --context 40960 --no-rewarm --ready-file "$OUT/$name.ready" -- \
    --load-format dummy --random-seed 7 --max-total-tokens 180000 --sleep-on-idle > "$OUT/$name.log" 2>&1 &
  SERVER_PID[$name]=$!
  say "$name starts on port ${PORT[$name]} (pid ${SERVER_PID[$name]})"
  sleep 15 # each reads the card's free memory some 20 s after its start: not two at once
done

# warm NAME: wait until it is, or has ended; 1 when it will not be.
warm() {
  while [ ! -e "$OUT/$1.ready" ]; do
    kill -0 "${SERVER_PID[$1]}" 2>/dev/null || { say "$1 ended:"; tail -n 5 "$OUT/$1.log" | cut -c1-400; return 1; }
    [ "$(left)" -gt 190 ] || { say "$1 is not warm with 190 s left"; return 1; }
    sleep 1
  done
  say "$1 is warm"
}
up=()
for name in $NAMES; do
  if warm "$name"; then up+=("$name"); else stop "$name"; fi
done
rm -f "$OUT"/*.ready
for name in "${up[@]}"; do
  url=http://127.0.0.1:${PORT[$name]}
  python3 -m benchmarks.gpu.long_context --url "$url" --name "$name" --lengths 32768 --at-once 1 3 --results "$OUT/quantized.json"
  [ "$(left)" -gt 15 ] && timeout "$(( $(left) - 5 ))" python3 -m benchmarks.gpu.contract --url "$url" --name "$name" --results "$OUT/contract.json"
  stop "$name"
done
grep -hE "note:|refused|ready at|ended with" "$OUT"/*.log | cut -c1-300
say "quantized is over"
