#!/bin/sh
# One recipe for a vision transformer with every parameter set: docs/examples/finetune_vit.md.
# In a minute on two cores. From the root of the repository:
#
#     sh examples/finetune_vit/run.sh              # OUT=folder says where to; options of search may follow
#
# Its pretrained weights do not come with the package, so that it starts from scratch here, at 32 pixels, for
# three epochs.
set -eu
OUT=${OUT:-runs/finetune_vit}

automl-vision search --data examples/fashion --config configs/finetune_vit.toml --out "$OUT/run" \
    --no-pretrained --resolutions 32 --epochs 3 --lineage names "$@"
