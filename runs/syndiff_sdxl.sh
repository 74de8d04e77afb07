#!/usr/bin/env bash
# SynDiff at the size of the paper: SDXL inpainting as it is and with LoRA, the single-step segmenter at 256 px.
#     MORPHOGEN_DATA=... runs/syndiff_sdxl.sh OUT [check | zero-shot | lora | table ...]
# It was never run by us: no GPU of this size and no hub were at hand. `check` (seconds, no GPU, no download) reads every
# option and file that does not need the weights. What the paper leaves open is our choice: docs/results.md.
#
# Two protocols, each with both generators:
#   P2, the headline: five folds by sequence (no sequence is in training and test).
#   P1, for comparison with the paper: 492/60/60 frames at random, which mixes the sequences (the notes say how many).
# zero-shot is SDXL inpainting untouched: LoRA whose updates stay at zero (one step at rate 0), as there is nothing else to train.
# Both are told of polyps by name (grammar=polyp): on a foundation of others `auto` is the grammar `generic`.
# lora: rank 16 on the U-Net's attention, 2,000 steps at 1e-4, the training part of each fold alone.
# The segmenter is `latent` on Stable Diffusion 1.5's autoencoder with LDM's churches-like U-Net, trained as SDSeg was
# (100,000 steps of 4); eps with the latent loss (objective=paper), and x0 beside it.
#
# Reckoned, not measured: bytes counted on networks of the published shapes without content (morphogen.training.memory),
# 8 % for fragments and 0.8 GB for the driver added; operations at 35 TFLOP/s, what a GPU of 24 GB may reach in bf16. Weights
# are held in fp32 throughout: U-Net 10.3 GB, text encoders 3.3, autoencoder 0.3.
#   LoRA, 2,000 steps of 4 rows at 1024 px, a row at a time, checkpointing, bf16: 16 GB, 2 h (its texts and images are
#     encoded first: 19 GB; four rows at a time would be 25 GB, by the autoencoder, which reads the holes in fp32)
#   painting, 8 images at once, 50 steps with guidance, the U-Net in bf16: 21 GB (22 GB in fp32), 16 s an image. In every
#     repetition 300 candidates, 1.3 h, and as many again for text=none and for text=wrong; and before them the lesions
#     of its 386 to 492 training images painted away, one at a time, 1.7 to 2.2 h
#   a segmenter, 100,000 steps of 4: 10 GB, 8 h
# For each generator that is 18 h of painting and 26 segmenters in P2, 19 h and 30 in P1: for all of it 41 days on one GPU,
# of which the segmenters take 37. The cells can be divided among GPUs (--cells).
#
# Figures of others on CVC-ClinicDB, as they state them; their splits are random, and SDSeg's code chooses its checkpoint
# on the test part:
#   SynDiff: Dice 96.0, IoU 92.9, HD95 7.2 (unit not physical: probably px), 0.08 s an image
#   SDSeg as LEAF's authors ran it again: Dice 93.6, IoU 89.3; as users of its code report: Dice 85.7, IoU 77.9 at best
#   LEAF: Dice 95.2, IoU 90.9
#   MedSegDiff 92.4 / 88.9, TransUNet 92.0 / 87.8, Swin-UNet 91.4 / 87.4, U-Net 85.6 / 80.5 (in LEAF's table)
# None of them is a figure of ours.
set -euo pipefail
out=${1:?name a folder}
what=("${@:2}")
[ ${#what[@]} -gt 0 ] || what=(zero-shot lora table)
data=${MORPHOGEN_DATA:?name the folder of the real images}/polyps
here=$(dirname "$0")
mkdir -p "$out"
[ -e "$out/random/records.csv" ] || python "$here/syndiff_random_split.py" "$data/cvc_clinicdb" "$out/random"

declare -A preset=(
    [zero-shot]="sdxl+grammar=polyp+lora+lr=0+max_train_steps=1+train_batch_size=1+mixed_precision=bf16"
    [lora]="sdxl+grammar=polyp+lora+mixed_precision=bf16+gradient_accumulation_steps=4"
)

study() { # study GENERATOR PROTOCOL, where PROTOCOL is sequences or random
    local folder=$data/cvc_clinicdb
    [ "$2" = sequences ] || folder=$out/random
    morphogen study "$folder" --out "$out/$1-$2" --generator inpaint --preset "${preset[$1]}" --synthetic 300 \
        --gates agreement copies drawn untouched --resolution 256 --recipe published --device "${DEVICE:-cuda}" \
        --judges latent+foundation=sd15+denoiser=churches+objective=paper latent+foundation=sd15+denoiser=churches+objective=x0 \
        --arms real-geo syn-geo+n=100 duplicated syn-geo+n=100+text=none syn-geo+n=100+text=wrong "${@:3}"
}

for part in "${what[@]}"; do
    case $part in
    check)
        for generator in zero-shot lora; do
            python - "${preset[$generator]}" <<'PY'
import sys

from morphogen.generators.inpaint.config import inpaint_config
from morphogen.segmenters import published

config = inpaint_config(sys.argv[1])
wanted = ("foundation", "grammar", "tuning", "lora_rank", "lr", "max_train_steps", "sampling_steps", "guidance", "strength")
print({name: getattr(config, name) for name in wanted})
print({name: value for name, value in published("latent", 492).items() if name in ("resolution", "max_train_steps", "lr")})
PY
        done
        # the same studies on what ships, so that arms, gates, judges and both splits are read by the real command
        for protocol in sequences random; do
            morphogen study "$([ $protocol = random ] && echo "$out/random" || echo "$data/cvc_clinicdb")" \
                --out "$out/check-$protocol" --generator inpaint --preset "tiny+lora+max_train_steps=1" --synthetic 300 \
                --gates agreement copies drawn untouched --resolution 256 --recipe published \
                --judges latent+objective=paper latent+objective=x0 \
                --arms real-geo syn-geo+n=100 duplicated syn-geo+n=100+text=none syn-geo+n=100+text=wrong --dry-run
        done
        ;;
    zero-shot | lora)
        for protocol in sequences random; do
            study "$part" $protocol --cells 'real-geo.*'
            study "$part" $protocol --cells 'syn-geo+n=100.*'
            study "$part" $protocol --cells '*.fold0*' # the other arms: one fold, or the seeds of the random split
        done
        ;;
    table)
        for study in "$out"/{zero-shot,lora}-{sequences,random}; do
            [ ! -d "$study/cells" ] || { echo "## $(basename "$study")" && python "$here/study_table.py" "$study"; }
        done
        ;;
    *)
        echo "$part: is none of check, zero-shot, lora, table" >&2
        exit 2
        ;;
    esac
done
