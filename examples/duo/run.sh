#!/bin/sh
# Two classes, four backbones with the same time each, augmented copies among the originals: docs/examples/duo.md.
# In minutes on two cores. From the root of the repository:
#
#     sh examples/duo/run.sh                       # OUT=folder says where to; options of search may follow
#
# No pretrained weights of these four come with the package, so that they start from scratch here, at 32 pixels, and
# one fine-tune of four epochs each ends it before the time does.
set -eu
OUT=${OUT:-runs/duo}

python examples/make_duo.py "$OUT/data"

automl-vision search --data "$OUT/data" --config configs/duo.toml --out "$OUT/run" \
    --no-pretrained --resolutions 32 --budget-per-backbone 5m --trials 1 --epochs 4 --batch-size 16 --lineage names "$@"
