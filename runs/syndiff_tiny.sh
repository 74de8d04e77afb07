#!/usr/bin/env bash
# SynDiff on real colonoscopy at the size of `tiny`: lesions from words, and the single-step segmenter beside a U-Net.
#     MORPHOGEN_DATA=... runs/syndiff_tiny.sh OUT [headline|exploratory|random|table ...]
# CVC-ClinicDB in five folds by sequence, all annotated frames of a fold's training part. In each fold the inpainting
# generator is trained once; 800 candidates are painted into parts of its frames without a polyp, and gates judge them.
# headline: {real-geo, syn-geo+n=100} in all folds. exploratory: everything else, in fold 0 and with the U-Net alone; the
# report marks it so. random: the published kind of split beside it, with one seed.
# External test: the frames of Kvasir-SEG that `tiny` never saw. Every command can be stopped and given again.
# `dry` prints an estimate for all cells of all arms in all folds, of which these parts run less than a third. One thread a
# process and two processes side by side (--cells) serve two cores best.
set -euo pipefail
out=${1:?name a folder}
what=("${@:2}")
[ ${#what[@]} -gt 0 ] || what=(headline exploratory random table)
data=${MORPHOGEN_DATA:?name the folder of the real images}/polyps
here=$(dirname "$0")
mkdir -p "$out"
[ -e "$out/kvasir/records.csv" ] || python "$here/kvasir_held_out.py" "$data/kvasir_seg" "$out/kvasir"

study() { # study FOLDER OUT ...: an inpainting generator, its gates and both judges
    morphogen study "$1" --out "$2" --test "kvasir=$out/kvasir" \
        --generator inpaint --preset "${PRESET:-tiny}" --synthetic "${SYNTHETIC:-800}" ${ANNOTATED:+--annotated "$ANNOTATED"} \
        --gates agreement copies drawn untouched --judges unet latent "${@:3}"
}

sequences() { # the same study in every call; --cells chooses
    study "$data/cvc_clinicdb" "$out/study" --arms real real-geo duplicated syn-geo+n=100 syn-geo+n=50 syn-geo+n=200 \
        syn-geo+n=100+text=none syn-geo+n=100+text=wrong "$@"
}

for part in "${what[@]}"; do
    case $part in
    dry) sequences --dry-run ;;
    headline) # the first two cells of a row, fold by fold, so that what is there is always whole
        for fold in 0 1 2 3 4; do
            sequences --cells "real-geo.*.fold$fold.*"
            sequences --cells "syn-geo+n=100.*.fold$fold.*"
        done
        ;;
    exploratory) # N in {50, 200}; no text, wrong text; without augmentation, and the noise floor
        for arm in syn-geo+n=50 syn-geo+n=200 syn-geo+n=100+text=none syn-geo+n=100+text=wrong real duplicated; do
            sequences --cells "$arm.unet.fold0.*"
        done
        ;;
    random) # 492/60/60 frames at random, as published: near-duplicates of every test frame are in the training part
        [ -e "$out/random/records.csv" ] || python "$here/syndiff_random_split.py" "$data/cvc_clinicdb" "$out/random"
        study "$out/random" "$out/random-study" --seeds 1 --arms real-geo syn-geo+n=100
        ;;
    table)
        for made in "$out/study" "$out/random-study"; do
            [ ! -e "$made/cells" ] || python "$here/study_table.py" "$made"
        done
        ;;
    *)
        echo "$part: is none of dry, headline, exploratory, random, table" >&2
        exit 2
        ;;
    esac
done
