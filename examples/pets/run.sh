#!/bin/sh
# Two classes merged from finer ones by a label map, one four times the size of the other: docs/examples/pets.md.
# In minutes on two cores. From the root of the repository:
#
#     sh examples/pets/run.sh                      # OUT=folder says where to; options of search may follow
#
# Instead of breeds: ten kinds of clothes, of which two are shirts. Once pretrained and once from scratch, three
# epochs each, over one split.
set -eu
OUT=${OUT:-runs/pets}

automl-vision search --data examples/fashion --config configs/pets.toml --out "$OUT/pretrained" \
    --label-map examples/pets/clothes.csv --lineage names \
    --backbones efficientnet_lite0 --resolutions 64 --trials 1 --epochs 3 "$@"

automl-vision search --data examples/fashion --config configs/pets.toml --out "$OUT/scratch" \
    --label-map examples/pets/clothes.csv --lineage names \
    --backbones efficientnet_lite0 --resolutions 64 --trials 1 --epochs 3 --no-pretrained "$@"
