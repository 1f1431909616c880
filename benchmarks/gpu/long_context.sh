#!/usr/bin/env bash
# LongRoPE in stock SGLang's operations and in the plug-in's one table, a prompt of 128K tokens, and the starts of FP8 weights and of a GPTQ
# checkpoint. MiniCPM4.1-8B's shape, random weights, EAGLE3 3/1/4 on fa3, natural acceptance of noise: the time of a step is what counts.
# Every engine is started by `aquiline engine serve` with its preset. Ends within 10 minutes. Results: $OUT/long-context.json, logs beside it.
source "$(dirname "$0")/common.sh"
begin "${RUN_S:-580}"

# made NAME [OPTIONS of benchmarks.gpu.models]: a target's folder; the draft's is the one that `begin` made.
made() { python3 -m benchmarks.gpu.models --model "$GPU_ROOT/$1" --draft "$GPU_ROOT/$1-draft" "${@:2}"; }

# serve NAME PORT PRESET MODEL [OPTIONS] -- [ARGUMENTS OF SGLANG]
serve() {
  local name=$1 port=$2 preset=$3 model=$4
  shift 4
  setsid python3 -c 'from services.cli.engine import app; app()' serve --preset "$preset" --model-path "$GPU_ROOT/$model" \
    --draft-path "$GPU_ROOT/$model-draft" --port "$port" --permits 1 --no-rewarm --ready-file "$OUT/$name.ready" "$@" \
    --load-format dummy --random-seed 7 > "$OUT/$name.log" 2>&1 &
  SERVER_PID[$name]=$!
  say "$name starts on port $port (pid ${SERVER_PID[$name]}): $preset $model $*"
}

# The preset of a 4-bit checkpoint is a small card's: this card's kernels and memory in it.
sed 's/"flashinfer"/"fa3"/; s/^card_gib = .*/card_gib = 79.1/' "$REPO/deploy/engine/rtx4090-gptq.toml" > "$GPU_ROOT/gptq.toml"
made plain; made long --longrope; made packed --gptq
AQUILINE_FUSED_LONGROPE=0 serve stock 30001 h100 long -- --max-total-tokens 150000
sleep 20 # each reads the card's free memory some 20 s after its start: not two at once
serve fused 30002 h100 long --longrope -- --max-total-tokens 300000
sleep 20
serve plain 30003 h100 plain -- --max-total-tokens 150000
sleep 20
serve fp8 30004 h100-fp8 plain -- --max-total-tokens 150000
sleep 20
serve gptq 30005 "$GPU_ROOT/gptq.toml" packed -- --max-total-tokens 150000

for name in plain:30003 stock:30001 fused:30002 fp8:30004 gptq:30005; do
  port=${name#*:} name=${name%:*}
  ready "$name" "$port" $(( $(left) > 120 ? $(left) - 100 : 20 )) || { stop "$name"; continue; }
  lengths=(32768)
  [ "$name" = fused ] && lengths=(32768 126976)
  python3 -m benchmarks.gpu.long_context --url "http://127.0.0.1:$port" --name "$name" --lengths "${lengths[@]}" --results "$OUT/long-context.json"
  stop "$name"
done
grep -hE "note:|refused|ready at|ended with" "$OUT"/*.log | cut -c1-300
say "long context is over"
