#!/usr/bin/env bash
# Diff-CL beside supervised training and CPS on 20 left atria at the size of a CPU: five folds, as cells.
#     MORPHOGEN_DATA=... runs/diffcl_left_atrium.sh OUT [dry|headline|exploratory|table ...]
# Every fold tests 4 volumes, validates on 2 and trains on 4 labelled and 10 unlabelled ones. Volumes are taken at 2.5 times
# their voxel size (0.625 mm), patches are 64 x 48 x 32 of these, networks have 8 filters; scores are at native size.
# headline: supervised, cps and diff-cl on all folds. exploratory: fold 0 alone, marked so in the report.
# On one thread a cell takes 3 to 18 minutes (THREADS=1 and two of these commands at once use two cores best); every
# command can be stopped and given again. The first run had STEPS=400, and Diff-CL as it was then:
# LEAD=diff-cl+late=4+signal_scale=0.2+patience=0.4 in place of diff-cl.
set -euo pipefail
out=${1:?name a folder}
what=("${@:2}")
[ ${#what[@]} -gt 0 ] || what=(headline exploratory table)
export OMP_NUM_THREADS=${THREADS:-1}
headline=(supervised cps "${LEAD:-diff-cl}")
exploratory=(diff-cl+operator=none diff-cl+eta=0 bcp ua-mt supervised+labelled=all)
settings=la2018+spacing=2.5+normalise=zscore+patch=64x48x32+augmentation=strong+filters=8+norm=instance+denoiser_dropout=0

compare() {
    morphogen compare "${MORPHOGEN_DATA:?name the folder of the real images}/left_atrium" --out "$out" --preset "$settings" \
        --labelled 4 --validation 2 --folds 5 --max-train-steps "${STEPS:-700}" "$@"
}

for part in "${what[@]}"; do
    case $part in
    dry) compare --rows "${headline[@]}" --dry-run ;;
    headline) # fold by fold, so that what is there is always whole
        for fold in 0 1 2 3 4; do compare --rows "${headline[@]}" --cells "fold$fold-*"; done
        ;;
    exploratory) compare --rows "${headline[@]}" "${exploratory[@]}" --cells "fold0-*" ;;
    table) python "$(dirname "$0")/few_table.py" "$out" ;;
    *)
        echo "$part: is none of dry, headline, exploratory, table" >&2
        exit 2
        ;;
    esac
done
