#!/usr/bin/env bash
# Sourced by the run scripts: stock SGLang from the packed site, model folders with dummy weights, servers watched while they
# start and stopped as process groups. Run from the repository's root on the GPU host, with `.gpu/sglang_site.tar.xz` beside it.
#
#   begin SECONDS                     unpack, write the model folders; nothing starts later than SECONDS from now
#   start NAME PORT [ARGS...]         start a server in the background; its log is $OUT/NAME.log
#   ready NAME PORT SECONDS           wait for it while watching the process; 1 when it died or was too slow
#   stop NAME                         stop its whole process group
#   left                              seconds that are left
set -uo pipefail

OUT=${OUT:-/tmp/aquiline-gpu-out}
GPU_ROOT=${GPU_ROOT:-/tmp/aquiline-gpu}
SITE=$GPU_ROOT/site
MODEL=$GPU_ROOT/model
DRAFT=$GPU_ROOT/draft
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd "$HERE/../.." && pwd)
mkdir -p "$OUT" "$GPU_ROOT"

declare -A SERVER_PID=()

# Settings of every server here: as the presets in deploy/engine have them, but for dummy weights and a bound on the KV pool
# that lets several servers share the card.
SERVER_ARGS=(
  --trust-remote-code --load-format dummy --dtype bfloat16 --random-seed 7
  --host 127.0.0.1 --attention-backend flashinfer --context-length 65536
  --mem-fraction-static 0.85 --max-total-tokens 560000
  --max-running-requests 8 --cuda-graph-max-bs-decode 8 --chunked-prefill-size 8192
  --schedule-policy fcfs --enable-metrics --constrained-json-disable-any-whitespace
  --log-level-http warning
)
EAGLE_ARGS=(
  --speculative-algorithm EAGLE3 --speculative-draft-model-path "$DRAFT"
  --speculative-num-steps 3 --speculative-eagle-topk 1 --speculative-num-draft-tokens 4
)

say() { printf '%s +%ss %s\n' "$(date -u +%H:%M:%S)" "$(( $(date +%s) - BEGAN ))" "$*"; }
left() { echo $(( BEGAN + BUDGET - $(date +%s) )); }

begin() {
  BEGAN=$(date +%s)
  BUDGET=$1
  export BEGAN BUDGET
  exec > >(tee -a "$OUT/run.log") 2>&1
  trap 'stop_all' EXIT
  trap 'exit 143' TERM INT
  say "commit $(cat "$REPO/.gpu/commit" 2>/dev/null || git -C "$REPO" rev-parse --short HEAD 2>/dev/null || echo unknown), $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo 'no GPU')"
  if [ ! -e "$SITE/.complete" ]; then
    mkdir -p "$SITE" "$GPU_ROOT/parts" "$GPU_ROOT/tools"
    cp "$REPO"/.gpu/site.* "$REPO"/.gpu/fa3.* "$GPU_ROOT/parts/" 2>/dev/null
    # Apart from the site, which holds one too: a library that is in use must not be written over.
    for wheel in "$REPO"/.gpu/wheels/zstandard-*.whl; do python3 -m zipfile -e "$wheel" "$GPU_ROOT/tools"; done
    PYTHONPATH=$GPU_ROOT/tools python3 "$HERE/unpack.py" "$GPU_ROOT/parts" "$SITE" || { say "the packed site could not be unpacked"; exit 1; }
    # Wheels that the worker and the command need and the host's image lacks.
    for wheel in "$REPO"/.gpu/wheels/*.whl; do
      [ -e "$wheel" ] && python3 -m zipfile -e "$wheel" "$SITE"
    done
    if [ -e "$REPO/.gpu/kernels.tar.xz" ]; then
      # Kernels that an earlier run on the same kind of card compiled: flashinfer takes them from here without nvcc.
      mkdir -p "$SITE/flashinfer/data/aot"
      tar xJf "$REPO/.gpu/kernels.tar.xz" -C "$SITE/flashinfer/data/aot" && say "kernels of an earlier run unpacked"
    fi
    if [ -e "$REPO/.gpu/caches.tar.xz" ]; then
      # SGLang's own kernels (tvm-ffi) and Triton's, with their times to the nanosecond, which ninja compares.
      tar xJf "$REPO/.gpu/caches.tar.xz" -C "$HOME" && say "caches of an earlier run unpacked"
    fi
    PYTHONPATH=$REPO python3 -m benchmarks.gpu.metadata "$SITE" || { say "the tree's metadata could not be written"; exit 1; }
    touch "$SITE/.complete"
  fi
  export PYTHONPATH="$SITE:$REPO${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
  export SGLANG_EXTERNAL_MODEL_PACKAGE=services.inference.sglang_plugin
  export SGLANG_ENABLE_JIT_DEEPGEMM=0 SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION=0
  export MAX_JOBS=${MAX_JOBS:-8}
  python3 -m benchmarks.gpu.models --model "$MODEL" --draft "$DRAFT" || { say "the model folders could not be written"; exit 1; }
  say "site and model folders are ready"
}

# start NAME PORT [ARGS...]: variables set in front of the call reach the server.
start() {
  local name=$1 port=$2
  shift 2
  setsid python3 -m sglang.launch_server --model-path "$MODEL" --port "$port" "${SERVER_ARGS[@]}" "$@" > "$OUT/$name.log" 2>&1 &
  SERVER_PID[$name]=$!
  say "$name starts on port $port (pid ${SERVER_PID[$name]}): $*"
}

ready() {
  local name=$1 port=$2 seconds=$3 before=$SECONDS printed=$SECONDS
  while [ $((SECONDS - before)) -lt "$seconds" ]; do
    if ! kill -0 "${SERVER_PID[$name]}" 2>/dev/null; then
      say "$name died; the end of its log:"
      tail -n 40 "$OUT/$name.log" | cut -c1-400
      return 1
    fi
    if python3 -m benchmarks.gpu.client health "http://127.0.0.1:$port" 2>/dev/null; then
      say "$name answers after $((SECONDS - before)) s of waiting"
      return 0
    fi
    if [ $((SECONDS - printed)) -ge 20 ]; then
      printed=$SECONDS
      say "waiting for $name: $(tail -n 1 "$OUT/$name.log" | tr '\r' '\n' | tail -n 1 | cut -c1-160)"
    fi
    sleep 1
  done
  say "$name was not ready within $seconds s; the end of its log:"
  tail -n 25 "$OUT/$name.log" | cut -c1-400
  return 1
}

stop() {
  local name=$1 pid=${SERVER_PID[$1]:-}
  [ -z "$pid" ] && return 0
  unset "SERVER_PID[$name]"
  kill -TERM -- "-$pid" 2>/dev/null
  for _ in $(seq 1 20); do
    kill -0 -- "-$pid" 2>/dev/null || { say "$name stopped"; return 0; }
    sleep 0.5
  done
  kill -KILL -- "-$pid" 2>/dev/null
  say "$name stopped by force"
}

stop_all() {
  local name
  for name in "${!SERVER_PID[@]}"; do stop "$name"; done
  # Full logs are long; the first and last parts say what happened, and what comes back is limited to 16 MiB a file.
  for name in "$OUT"/*.log; do
    if [ "$(stat -c %s "$name" 2>/dev/null || echo 0)" -gt 8000000 ]; then
      { head -c 3000000 "$name"; printf '\n[...]\n'; tail -c 3000000 "$name"; } > "$name.short" && mv "$name.short" "$name"
    fi
  done
}

# Keep what was compiled, for later runs to carry as .gpu/kernels.tar.xz (flashinfer) and .gpu/caches.tar.xz (SGLang, Triton):
# each small enough or not at all.
save_kernels() {
  [ "$(left)" -lt 25 ] && { say "no time is left to keep the kernels"; return 0; }
  local cached stage=$GPU_ROOT/kernels folders=() folder
  du -sh "$HOME"/.cache/* "$HOME"/.triton 2>/dev/null
  cached=$(find "$HOME/.cache/flashinfer" -type d -name cached_ops 2>/dev/null | head -n 1)
  if [ -n "$cached" ]; then
    rm -rf "$stage" && mkdir -p "$stage"
    (cd "$cached" && find . -name '*.so' -exec cp --parents {} "$stage" \;)
    find "$stage" -name '*.so' -exec strip --strip-unneeded {} \; 2>/dev/null
    # What was carried here is kept as well, since nothing compiled it again.
    [ -d "$SITE/flashinfer/data/aot" ] && cp -rn "$SITE/flashinfer/data/aot/." "$stage/"
    du -sh "$stage" && (cd "$stage" && find . -name '*.so' -printf '%s %p\n' | sort)
    pack "$OUT/kernels.tar.xz" "$stage" .
  fi
  for folder in .cache/tvm-ffi .triton/cache; do [ -d "$HOME/$folder" ] && folders+=("$folder"); done
  [ "${#folders[@]}" -gt 0 ] && pack "$OUT/caches.tar.xz" "$HOME" "${folders[@]}"
}

# pack ARCHIVE FOLDER NAME...: within 20 seconds and 14 MB, or not at all.
pack() {
  local archive=$1 folder=$2 made=$GPU_ROOT/packed.tar.xz
  shift 2
  timeout 20 tar cf - --format=posix -C "$folder" "$@" | timeout 20 xz -T0 -6 > "$made" || return 0
  if [ "$(stat -c %s "$made")" -lt 14000000 ]; then
    cp "$made" "$archive" && say "$(basename "$archive"): $(stat -c %s "$made") bytes"
  else
    say "$(basename "$archive") would be too large to carry: $(stat -c %s "$made") bytes"
  fi
}
