#!/usr/bin/env bash
# SkinDualGen at the size of Stable Diffusion 2: 512 px, bf16, LoRA of rank 32, 15,000 steps of 16 pairs.
#     SD2=FOLDER|owner/name@revision DATA=FOLDER runs/skindualgen_sd2.sh OUT [check|headline|exploratory|table ...]
# It was never run by us: no GPU of this size and no hub were at hand. `check` (a few minutes, no GPU, no weights) reads
# every option, counts the memory of a step on networks without content, and asks the real command for its plan.
#
# SD2 is Stable Diffusion 2 base (foretells eps, 512 px) in diffusers' layout; the version for 768 px foretells v, which is
# read from its scheduler. DATA is HAM10000 as it is downloaded, with the masks of its lesions (lesions are kept apart), or
# any folder with images/, masks/ and a records.csv with classes. RESNET50 and VIT are folders of ImageNet weights.
# What the paper states could be read in its abstract alone: Stable Diffusion 2.0 adapted by LoRA, image and mask at once,
# several objectives; hybrid data raise accuracy and F1 by 8 to 15 %, and Dice and IoU. These are the paper's figures, not
# ours; rank, rates, data, amounts and classifiers below are our choice (src/morphogen/generators/dual/README.md).
#
# Estimates on one GPU of 80 GB (not measured): the generator 10 h a seed; 2 x as many candidates as real pairs in 30 steps
# with guidance, 5 h for the 7,000 of HAM10000's training part; a judge of 20,000 steps 2 to 4 h. Three seeds of the
# headline, four days; cells can be divided (--cells).
set -euo pipefail
out=${1:?name a folder}
what=("${@:2}")
[ ${#what[@]} -gt 0 ] || what=(headline exploratory table)
here=$(dirname "$0")
mkdir -p "$out"
arms=(real real-geo oversampled duplicated features syn-geo syn-geo+gates=none syn-geo+balance=largest synthetic-only)
gates=(area ambiguous agreement copies class-agreement)

study() {
    morphogen study "${DATA:?name the folder of the real images}" --out "$out/study" --generator dual \
        --preset "sd2+${SD2:?name Stable Diffusion 2: a folder, or owner/name@revision}" --per-mask 2 --gates "${gates[@]}" \
        --judges unet "resnet50+weights=${RESNET50:-none}" "vit-b16+weights=${VIT:-none}" --steps "${STEPS:-20000}" \
        --device "${DEVICE:-cuda}" --arms "${arms[@]}" "$@"
}

for part in "${what[@]}"; do
    case $part in
    check)
        python - <<'PY'
from morphogen.generators.dual.config import dual_config

config = dual_config("sd2")
wanted = ("resolution", "mixed_precision", "tuning", "lora_rank", "lora_alpha", "lr", "conv_lr", "max_train_steps",
          "train_batch_size", "sampling_steps", "guidance", "align_after")
print({name: getattr(config, name) for name in wanted})
PY
        python "$here/dual_memory.py"
        # the same study on what ships, so that arms, gates and judges are read by the real command
        morphogen study "${DATA:?name the folder of the real images}" --out "$out/check" --generator dual --preset tiny+lora \
            --per-mask 2 --gates "${gates[@]}" --judges unet resnet50+weights=none vit-b16+weights=none --arms "${arms[@]}" \
            --dry-run
        ;;
    headline)
        for seed in 0 1 2; do
            study --cells "real-geo.*-seed$seed.*"
            study --cells "syn-geo.*-seed$seed.*"
        done
        ;;
    exploratory) study --cells "*-seed0.*" ;;
    table) python "$here/study_table.py" "$out/study" ;;
    *)
        echo "$part: is none of check, headline, exploratory, table" >&2
        exit 2
        ;;
    esac
done
