#!/bin/sh
# ResNet34, a head found by architecture search, recipes proposed by a Gaussian process, over several data sets:
# docs/examples/darts.md. In minutes on two cores. From the root of the repository:
#
#     sh examples/darts/run.sh                     # OUT=folder says where to; options of search may follow
#
# ResNet34's pretrained weights do not come with the package, so that it starts from scratch here, at 32 pixels and with
# small batches: 240 pictures to train on make few steps otherwise. The last run is the same with the one network whose
# weights do come along: a head can only find what the features hold.
set -eu
OUT=${OUT:-runs/darts}

python examples/make_digits.py "$OUT/data/digits" --images 40

automl-vision search --data examples/fashion --config configs/darts.toml --out "$OUT/fashion" \
    --no-pretrained --resolutions 32 --lineage names --trials 4 --max-samples 400 \
    --epochs 4 --batch-size 8 --no-ema "$@"

automl-vision search --data "$OUT/data/digits" --config configs/darts.toml --out "$OUT/digits" \
    --no-pretrained --resolutions 32 --lineage names --trials 4 --max-samples 400 \
    --epochs 4 --batch-size 8 --no-ema --no-horizontal-flip "$@"

automl-vision search --data examples/fashion --config configs/darts.toml --out "$OUT/fashion-pretrained" \
    --backbones efficientnet_lite0 --resolutions 64 --lineage names --trials 4 --max-samples 400 \
    --epochs 3 "$@"

python examples/table_of_runs.py "$OUT/fashion" "$OUT/digits" "$OUT/fashion-pretrained"
