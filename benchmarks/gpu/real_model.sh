#!/usr/bin/env bash
# SmolLM2 with the shipped adapter and draft on stock SGLang: in Llama's form, in MiniCPM's form through the plug-in, and that with EAGLE3. Greedy
# answers of the three beside transformers on the CPU, acceptance and speed by prompt length, and the worker's own questions under its grammar.
# LLAMA is the model's folder with the adapter merged in, HEAD that of the draft, EXAMPLES the file of `aquiline model prepare`, and LONGEST,
# where there is one, a second such file with prompts as long as the model can read.
# Results: $OUT/real-model.json, $OUT/real-model-answers.json. Ends within 8 minutes.
source "$(dirname "$0")/common.sh"
begin "${RUN_S:-470}"
SRC=${SRC:-$REPO}
export PYTHONPATH="$SITE:$SRC"
cd "$SRC"
[ -d "$GPU_ROOT/minicpm" ] || python3 -c 'from services.cli.model import app; app()' convert "$LLAMA" "$GPU_ROOT/minicpm" --form minicpm || exit 1

SERVER_ARGS=(
  --trust-remote-code --dtype bfloat16 --random-seed 7 --host 127.0.0.1 --attention-backend fa3 --context-length 8192
  --max-total-tokens 240000 --max-running-requests 8 --cuda-graph-max-bs-decode 8 --chunked-prefill-size 8192 --disable-prefill-cuda-graph
  --schedule-policy fcfs --enable-metrics --constrained-json-disable-any-whitespace --log-level-http warning
)
# Each reads the card's free memory some 20 s after its start: one after the other, and each leaves room for the next.
start llama 30001 --model-path "$LLAMA" --mem-fraction-static 0.2
sleep 16
start minicpm 30002 --model-path "$GPU_ROOT/minicpm" --mem-fraction-static 0.35
sleep 16
start eagle 30003 --model-path "$GPU_ROOT/minicpm" --mem-fraction-static 0.5 --speculative-algorithm EAGLE3 \
  --speculative-draft-model-path "$HEAD" --speculative-num-steps 3 --speculative-eagle-topk 1 --speculative-num-draft-tokens 4
for server in llama:30001 minicpm:30002 eagle:30003; do ready "${server%:*}" "${server#*:}" $(( $(left) - 150 )) || FAILED=1; done

measure() { python3 -m benchmarks.gpu.real_model "$@" --examples "$EXAMPLES" ${LONGEST:+"$LONGEST"} --results "$OUT/real-model.json"; }
measure greedy --llama http://127.0.0.1:30001 --minicpm http://127.0.0.1:30002 --eagle http://127.0.0.1:30003
say "greedy answers are compared"
timeout "$(( $(left) > 150 ? $(left) - 90 : 60 ))" python3 -c 'from services.cli.model import app; app()' eval "$EXAMPLES" --url http://127.0.0.1:30003 --kind sglang \
  --tokenizer-file "$LLAMA/tokenizer.json" --count "${COUNT:-600}" --at-once 8 --out "$OUT/real-model-answers.json" && say "the worker's questions are answered" || FAILED=1
measure speed --minicpm http://127.0.0.1:30002 --eagle http://127.0.0.1:30003
say "speed is measured"
stop llama; stop minicpm; stop eagle
measure reference --model "$LLAMA" --budget-s "$(( $(left) - 15 ))"
rm -f "$OUT"/llama.log "$OUT"/minicpm.log
say "the real model is over"
exit "${FAILED:-0}"
