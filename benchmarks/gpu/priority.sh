#!/usr/bin/env bash
# SGLang's priority scheduling: stock servers with and without --enable-priority-scheduling side by side on one card, asked by turns for decisions
# (mode flash at 12 a second, mode fast at 6) behind 32K cached tokens, without slices of pre-warming, with slices that wait for decisions as the worker
# sends them, and with slices that go out at once. p50 and p95 of the time to the first token and of the decision. Settings of preset h100 (fa3,
# EAGLE3 3/1/4), MiniCPM4.1-8B's shape, random weights, natural acceptance of noise. Ends within 5 minutes.
#
# Runs on one H100 or H200 as every script here does (common.sh): from the repository's root, with .gpu/site.*, .gpu/fa3.*, .gpu/wheels and .gpu/commit,
# or after another script on the same machine, whose unpacked site it finds:
#   RUN_S=290 bash benchmarks/gpu/priority.sh
#   PREFILL_GRAPHS=0   leaves the prefill graphs out of both servers, which start sooner then
# Results: $OUT/priority.json; $OUT/run.log and the servers' logs.
source "$(dirname "$0")/common.sh"
begin "${RUN_S:-290}"

MORE=(--attention-backend fa3 --max-total-tokens 420000 --sleep-on-idle)
[ "${PREFILL_GRAPHS:-1}" = 0 ] && MORE+=(--disable-prefill-cuda-graph)
start plain 30001 "${EAGLE_ARGS[@]}" "${MORE[@]}"
sleep 20 # each reads the card's free memory some 20 s after its start: not two at once
start priority 30002 "${EAGLE_ARGS[@]}" "${MORE[@]}" --enable-priority-scheduling
for server in plain:30001 priority:30002; do
  ready "${server%:*}" "${server#*:}" $(( $(left) > 100 ? $(left) - 90 : 10 )) || exit 1
done
# What is left, in twelve turns, less what reading the prefixes takes.
TURN_S=$(( ($(left) - 45) / 12 ))
python3 -m benchmarks.gpu.priority --plain http://127.0.0.1:30001 --priority http://127.0.0.1:30002 --results "$OUT/priority.json" \
  --seconds "$(( TURN_S > 10 ? 10 : TURN_S < 4 ? 4 : TURN_S ))"
say "priority is over"
