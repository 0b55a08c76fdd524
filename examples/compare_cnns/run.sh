#!/bin/sh
# Four convolutional networks under one recipe, trained in one place and asked in another: docs/examples/compare_cnns.md.
# In minutes on two cores. From the root of the repository:
#
#     sh examples/compare_cnns/run.sh              # OUT=folder says where to; options of search may follow
#
# No pretrained weights of these four come with the package, so that they start from scratch here, at 32 pixels and with
# small batches: 240 pictures to train on make few steps otherwise.
set -eu
OUT=${OUT:-runs/compare_cnns}

python examples/make_shifted.py "$OUT/data"

automl-vision search --data "$OUT/data/here" --config configs/compare_cnns.toml --out "$OUT/mobilenetv2_100" \
    --backbones mobilenetv2_100 --no-pretrained --resolutions 32 --lineage names --budget-per-backbone "" \
    --learning-rate 0.001 --epochs 8 --batch-size 8 --no-ema "$@"
automl-vision evaluate "$OUT/mobilenetv2_100/model.pt" --data "$OUT/data/elsewhere" --json > "$OUT/mobilenetv2_100/elsewhere.json"

automl-vision search --data "$OUT/data/here" --config configs/compare_cnns.toml --out "$OUT/resnet50" \
    --backbones resnet50 --no-pretrained --resolutions 32 --lineage names --budget-per-backbone "" \
    --learning-rate 0.001 --epochs 8 --batch-size 8 --no-ema "$@"
automl-vision evaluate "$OUT/resnet50/model.pt" --data "$OUT/data/elsewhere" --json > "$OUT/resnet50/elsewhere.json"

automl-vision search --data "$OUT/data/here" --config configs/compare_cnns.toml --out "$OUT/efficientnet_b0" \
    --backbones efficientnet_b0 --no-pretrained --resolutions 32 --lineage names --budget-per-backbone "" \
    --learning-rate 0.001 --epochs 8 --batch-size 8 --no-ema "$@"
automl-vision evaluate "$OUT/efficientnet_b0/model.pt" --data "$OUT/data/elsewhere" --json > "$OUT/efficientnet_b0/elsewhere.json"

automl-vision search --data "$OUT/data/here" --config configs/compare_cnns.toml --out "$OUT/densenet121" \
    --backbones densenet121 --no-pretrained --resolutions 32 --lineage names --budget-per-backbone "" \
    --learning-rate 0.001 --epochs 8 --batch-size 8 --no-ema "$@"
automl-vision evaluate "$OUT/densenet121/model.pt" --data "$OUT/data/elsewhere" --json > "$OUT/densenet121/elsewhere.json"

python examples/table_of_runs.py "$OUT/mobilenetv2_100" "$OUT/resnet50" "$OUT/efficientnet_b0" "$OUT/densenet121"
