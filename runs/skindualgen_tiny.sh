#!/usr/bin/env bash
# SkinDualGen on real dermoscopy at the size of `tiny`: image and mask together, from words; two kinds of judges.
#     MORPHOGEN_DATA=... runs/skindualgen_tiny.sh OUT [dry|headline|exploratory|table ...]
# ISIC 2017 with the split that `tiny` was trained by (runs/skin_views.py): 300 annotated images of the training part, 240
# of them to train on; the 300 that `tiny` never saw are the test part, and PH2 is the external one. Three seeds.
# In each repetition the generator is trained once; it makes 600 candidates of a class distribution, and gates judge them.
# headline: {real-geo, syn-geo+n=240} with both judges and all seeds (one synthetic pair a real one).
# exploratory: everything else, with the first seed; the report marks it so. Every command can be stopped and given again.
set -euo pipefail
out=${1:?name a folder}
what=("${@:2}")
[ ${#what[@]} -gt 0 ] || what=(headline exploratory table)
data=${MORPHOGEN_DATA:?name the folder of the real images}/skin
here=$(dirname "$0")
mkdir -p "$out"
[ -e "$out/ph2/records.csv" ] || python "$here/skin_views.py" "$data" "$out"

study() { # the same study in every call; --cells chooses
    morphogen study "$out/isic2017" --out "$out/study" --test "ph2=$out/ph2" --annotated "${ANNOTATED:-300}" \
        --generator dual --preset "${PRESET:-tiny}" --adapt-steps 0 --synthetic "${SYNTHETIC:-600}" \
        --gates area ambiguous agreement copies class-agreement --judges unet lite0 \
        --arms real real-geo oversampled duplicated features syn-geo+n=240 syn-geo+n=240+gates=none \
        syn-geo+balance=largest "$@"
}

for part in "${what[@]}"; do
    case $part in
    dry) study --dry-run ;;
    headline) # seed by seed, so that what is there is always whole
        for seed in 0 1 2; do
            study --cells "real-geo.*.fold0-seed$seed.*"
            study --cells "syn-geo+n=240.*.fold0-seed$seed.*"
        done
        ;;
    exploratory) study --cells "*.fold0-seed0.*" ;;
    table) python "$here/study_table.py" "$out/study" ;;
    *)
        echo "$part: is none of dry, headline, exploratory, table" >&2
        exit 2
        ;;
    esac
done
