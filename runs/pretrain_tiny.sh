#!/usr/bin/env bash
# How the shipped `tiny` was made: about 100 minutes on two CPU cores. The model card gives the figures.
set -euo pipefail
out="${1:-runs/out/tiny}"
morphogen pretrain "$MORPHOGEN_DATA/polyps/kvasir_seg" "$MORPHOGEN_DATA/skin/isic2017" --out "$out" \
  --grammars polyp skin --ids splits/foundation.json --phantoms 400 \
  --autoencoder-steps 2000 --perceptual-steps 700 --denoiser-steps 5000 --hint-steps 1200 --mixed-precision bf16
python runs/ship_tiny.py "$out/final"
