#!/usr/bin/env bash
# Run 4 on a card that has room for several engines: all combinations start at once, since starting is most of what the tuner
# spends (run4.sh has it start them one after the other), and are measured in turn by the tuner's own sweep. Weights are random:
# what is accepted says nothing here, the time of a step does. Results: $OUT/tuned.json, tuned.png.
source "$(dirname "$0")/common.sh"
begin "${RUN_S:-400}"
SERVER_ARGS+=(--max-total-tokens 170000)
running=()
port=30011
for combination in ${COMBINATIONS:-3/1/4 2/1/3 5/1/6 5/4/8}; do
  IFS=/ read -r steps topk tokens <<< "$combination"
  start "engine-${combination//\//-}" "$port" --speculative-algorithm EAGLE3 --speculative-draft-model-path "$DRAFT" \
    --speculative-num-steps "$steps" --speculative-eagle-topk "$topk" --speculative-num-draft-tokens "$tokens"
  running+=("$combination=http://127.0.0.1:$port")
  port=$((port + 1))
  sleep 6 # each reads the card's free memory some 20 s after its start: not two at once
done
for combination in "${running[@]}"; do
  name=engine-${combination%%=*}
  ready "${name//\//-}" "${combination##*:}" $(( $(left) > 90 ? $(left) - 80 : 10 ))
done
COLUMNS=150 python3 -m benchmarks.gpu.run4_side --out "$OUT" --budget-s "$(( $(left) - 5 ))" "${running[@]}"
say "run 4 is over"
# Logs of so many engines are more files than come back.
tail -n 5 "$OUT"/engine-*.log > "$OUT/engines.log" && rm -f "$OUT"/engine-*.log
