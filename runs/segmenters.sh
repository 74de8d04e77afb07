#!/usr/bin/env bash
# Does every segmenter learn on real images from a random start? CVC-ClinicDB, its sequences divided by `train`, 96 px, 200
# steps of 8 pairs, small encoders. Prints the best Dice on the validation part (never a test part).
#     MORPHOGEN_DATA=... runs/segmenters.sh OUT
# About 6 minutes on two cores.
set -euo pipefail
out=${1:?name a folder for the runs}
data=${MORPHOGEN_DATA:?name the folder of the real images}/polyps/cvc_clinicdb
for named in unet:encoder=scratch segformer:size=b0+weights=none sanet:size=14+weights=none \
    polyp-pvt:size=b0+weights=none ctnet:size=b0+weights=none; do
    name=${named%%:*}
    morphogen train "$name" "$data" --out "$out/$name" --preset "${named#*:}" --resolution 96 --max-train-steps 200 \
        --train-batch-size 8 --lr 1e-3 --validation-steps 50 >"$out-$name.log"
    python - "$out/$name" "$named" <<'PY'
import json, sys

rows = [json.loads(line) for line in open(f"{sys.argv[1]}/metrics.jsonl")]
scores = {row["step"] + 1: round(row["val/dice"], 3) for row in rows if "val/dice" in row}
print(sys.argv[2], "validation Dice by step", scores)
PY
done
