#!/usr/bin/env bash
# The rivals on colonoscopy at the size of `tiny`: CVC-ClinicDB in five folds by sequence, 25 and 100 annotated frames.
#     MORPHOGEN_DATA=... runs/polyps.sh OUT [dry|screen|headline|large|exploratory|table ...]
# Judge: U-Net with a Lite0 encoder, 400 steps of 16 at 64 px. External test: the frames of Kvasir-SEG that `tiny` never
# saw. Parts and arms: runs/rivals.sh. Every command can be stopped and given again; a cell takes some 5 to 15 minutes.
set -euo pipefail
out=${1:?name a folder}
here=$(dirname "$0")
data=${MORPHOGEN_DATA:?name the folder of the real images}/polyps
mkdir -p "$out"
[ -e "$out/kvasir/records.csv" ] || python "$here/kvasir_held_out.py" "$data/kvasir_seg" "$out/kvasir"
images=$data/cvc_clinicdb
tests=(--test "kvasir=$out/kvasir")
repetitions=(fold0 fold1 fold2 fold3 fold4)
source "$here/rivals.sh"
rivals "$out" "${@:2}"
