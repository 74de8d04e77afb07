#!/usr/bin/env bash
# Diff-CL and its rivals by the field's protocol on the 2018 left atrium: 112 x 112 x 80, 15,000 steps of 2 + 2 patches.
#     LA=FOLDER runs/diffcl_la2018.sh OUT [check|train|score ...]
# It was never run by us: no GPU was at hand. `check` (a minute, no GPU, no data) reads every option and counts parameters and
# the memory of a step on networks without content.
#
# LA is the folder of UA-MT's files: ID/mri_norm2.h5 (perhaps in "2018LA_Seg_Training Set"), train.list (80), test.list
# (20). The first LABELLED (8) lines of train.list are labelled; its last four are kept for validation, where part of the
# literature chooses weights by the test list. The 20 test volumes are read once a run: `score` gives the weights that
# validation chose (final) and those of the last step (last), windows at strides of 18, 18 and 4 voxels.
# METHODS="supervised ua-mt cps bcp diff-cl" SEEDS="0 1 2" LABELLED=8 (4, 16; published sets are 4, 8 and 16 of 80).
# Estimates for one GPU of 24 GB with bf16, not measured: cps 6 h, diff-cl 10 to 20 h (mamba-ssm installed: the lower).
set -euo pipefail
out=${1:?name a folder}
what=("${@:2}")
[ ${#what[@]} -gt 0 ] || what=(train score)
labelled=${LABELLED:-8}
mkdir -p "$out"

lists() { # the folder with lists of our own; volumes are linked
    local la=${LA:?name the folder of the left atrium}
    [ -e "$out/la/val.list" ] && return
    mkdir -p "$out/la"
    head -n -4 "$la/train.list" >"$out/la/train.list"
    cp "$la/test.list" "$out/la/test.list"
    for folder in "$la"/*/ "$la/2018LA_Seg_Training Set"/*/; do
        [ ! -e "$folder/mri_norm2.h5" ] || ln -sfn "$(realpath "$folder")" "$out/la/$(basename "$folder")"
    done
    tail -n 4 "$la/train.list" >"$out/la/val.list"
}

for part in "${what[@]}"; do
    case $part in
    check)
        python "$(dirname "$0")/diffcl_memory.py" --mixed-precision "${PRECISION:-bf16}"
        ;;
    train)
        lists
        for seed in ${SEEDS:-0 1 2}; do
            for method in ${METHODS:-supervised ua-mt cps bcp diff-cl}; do
                morphogen train diffcl "$out/la" --out "$out/runs/$method-$labelled-seed$seed" --seed "$seed" \
                    --preset "la2018+method=$method+labelled=$labelled" --recipe published --mixed-precision "${PRECISION:-bf16}"
            done
        done
        ;;
    score)
        for run in "$out"/runs/*/; do
            name=$(basename "$run")
            for weights in final last; do
                morphogen predict "$run/$weights" "$out/la" --preset la2018 --part test --stride 18 18 4 \
                    --out "$out/predicted/$name-$weights"
                morphogen eval masks "$out/predicted/$name-$weights" "$out/la" --volumes --preset la2018 --part test \
                    --spacing 0.625 --json "$out/scores-$name-$weights.json"
            done
        done
        ;;
    *)
        echo "$part: is none of check, train, score" >&2
        exit 2
        ;;
    esac
done
