#!/usr/bin/env bash
# The tuner's table on a card that has room for several engines: as many combinations as fit start at once, since starting is most of what the
# tuner spends (tuner.sh has it start them one after the other), are measured in turn by the tuner's own sweep, and make room for the
# next ones. Weights are random: what is accepted says nothing here, the time of a step does.
# A combination is STEPS/TOPK/TOKENS, then `:window=N` or `:backend=NAME`. Results: $OUT/tuned.json (whole after each batch; rows of an
# earlier run are kept when $OUT/tuned.json or .gpu/tuned.json is there), tuned.txt, tuned.png.
source "$(dirname "$0")/common.sh"
begin "${RUN_S:-565}"
SERVER_ARGS+=(--max-total-tokens "${KV_TOKENS:-120000}")
[ -e "$REPO/.gpu/tuned.json" ] && cp "$REPO/.gpu/tuned.json" "$OUT/tuned.json"
read -r -a combinations <<< "${COMBINATIONS:-3/1/4 5/4/8 3/1/4:window=4096 2/1/3 5/1/6 3/4/8 3/1/4:backend=triton}"
memory=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits | head -n 1)
batch=${BATCH:-$(( (memory - 4000) / 25000 ))}
say "$batch engines at a time on a card of $memory MiB: ${combinations[*]}"
number=0
while [ "$number" -lt "${#combinations[@]}" ] && [ "$(left)" -gt "${BATCH_S:-130}" ]; do
  running=()
  for combination in "${combinations[@]:number:batch}"; do
    port=$((30011 + number))
    number=$((number + 1))
    IFS=/ read -r steps topk tokens <<< "${combination%%:*}"
    arguments=(--speculative-algorithm EAGLE3 --speculative-draft-model-path "$DRAFT"
      --speculative-num-steps "$steps" --speculative-eagle-topk "$topk" --speculative-num-draft-tokens "$tokens")
    [[ $combination == *:window=* ]] && { window=${combination##*:window=}; arguments+=(--speculative-draft-window-size "${window%%:*}"); }
    [[ $combination == *:backend=* ]] && arguments+=(--attention-backend "${combination##*:backend=}")
    # flashinfer's draft takes no window: another backend for the draft alone does.
    [[ $combination == *:window=* && $combination != *:backend=* ]] && arguments+=(--speculative-draft-attention-backend triton)
    start "engine-$port" "$port" "${arguments[@]}"
    running+=("$combination=http://127.0.0.1:$port")
    sleep 6 # each reads the card's free memory some 20 s after its start: not two at once
  done
  for combination in "${running[@]}"; do
    port=${combination##*:}
    ready "engine-$port" "$port" $(( $(left) > 90 ? $(left) - 60 : 10 ))
  done
  COLUMNS=150 python3 -m benchmarks.gpu.tuner_side_by_side --out "$OUT" --budget-s "$(( $(left) - 5 ))" --at-once ${AT_ONCE:-1 3} -- "${running[@]}" | tee "$OUT/tuned.txt"
  for combination in "${running[@]}"; do stop "engine-${combination##*:}"; done
done
[ "${SAVE_KERNELS:-0}" = 1 ] && save_kernels
# Logs of so many engines are more files than come back.
tail -n 12 "$OUT"/engine-*.log | cut -c1-400 > "$OUT/engines.log" && rm -f "$OUT"/engine-*.log
say "the tuner run is over"
