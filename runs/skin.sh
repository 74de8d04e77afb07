#!/usr/bin/env bash
# The rivals on dermoscopy at the size of `tiny`: ISIC 2017, 25 and 100 annotated images, three seeds.
#     MORPHOGEN_DATA=... runs/skin.sh OUT [dry|screen|headline|large|exploratory|table ...]
# The split is that by which `tiny` was trained (runs/skin_views.py): the 300 images that it never saw are the test part,
# and PH2 is the external one. Judge: U-Net with a Lite0 encoder, 400 steps of 16 at 64 px. Parts and arms: runs/rivals.sh.
# Every command can be stopped and given again; a cell takes some 5 to 15 minutes.
set -euo pipefail
out=${1:?name a folder}
here=$(dirname "$0")
data=${MORPHOGEN_DATA:?name the folder of the real images}/skin
mkdir -p "$out"
[ -e "$out/ph2/records.csv" ] || python "$here/skin_views.py" "$data" "$out"
images=$out/isic2017
tests=(--test "ph2=$out/ph2")
repetitions=(fold0-seed0 fold0-seed1 fold0-seed2)
source "$here/rivals.sh"
rivals "$out" "${@:2}"
