#!/bin/sh
# What a machine with a graphics card shows: docs/gpu.md. `make gpu-check` runs it; DEVICE is the number of the card.
set -eu
program=$(realpath "$1")
device=${DEVICE:-0}
cd "$(dirname "$0")/.."

"$program" engines
if ! "$program" engines | grep -q "^ONNX Runtime .*(CUDA:0) *usable"; then
    echo "skipped: CUDA is not usable here, see above and docs/gpu.md"
    exit 0
fi
nvidia-smi --query-gpu=index,name,driver_version,memory.total --format=csv || true

# The tests look for the library where a variable or an environment says; the program knows it already.
library=$("$program" engines --json | sed -n 's/.*"library": "\(.*\)".*/\1/p' | head -n 1)
echo "== the same numbers on CPU and CUDA"
ORT_DYLIB_PATH=$library ONNX_MTPRUNE_TEST_DEVICE=$device ${CARGO:-cargo} test --release --test engine_agreement -- --nocapture

echo "== verification on the card"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
model=onnx-models/digit_scenes
"$program" $model/model.onnx "$folder/small.onnx" --ratio 0.5 --device "cuda:$device" --require-verify \
    --report "$folder/report.json" | grep "^verified"
grep -A 12 '"nodes"' "$folder/report.json" | head -n 12

echo "== calibration on both devices, the same samples"
seconds() {
    start=$(date +%s.%N)
    "$program" calibrate $model/model.onnx --calibration $model/calibration.npz --engine onnxruntime --device "$1" \
        -o "$folder/$2.safetensors" > /dev/null
    date +%s.%N | awk -v start="$start" '{ printf "%.3f", $1 - start }'
}
# The first run of each warms caches. A file of its own for every run: a finished one would be taken as it is.
seconds cpu cpu-first > /dev/null
cpu=$(seconds cpu cpu-second)
seconds "cuda:$device" cuda-first > /dev/null
cuda=$(seconds "cuda:$device" cuda-second)
awk -v cpu="$cpu" -v cuda="$cuda" 'BEGIN { printf "CPU %s s, CUDA %s s, ratio %.2f, start of the program included\n", cpu, cuda, cpu / cuda }'
