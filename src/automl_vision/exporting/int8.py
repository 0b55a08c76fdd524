"""ONNX in 8 bits: weights and activations of the networks; normalisation, votes and calibration stay as they are.

Static quantisation as in Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference": weights per channel, activations by ranges that are read off real images.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from automl_vision.bundle import Bundle
from automl_vision.data.decode import open_rgb
from automl_vision.data.preprocess import squares
from automl_vision.exporting.graph import input_names, sides_of
from automl_vision.exporting.pictures import Pictures
from automl_vision.exporting.to_onnx import Writer, graph_proto, write

if TYPE_CHECKING:
    import onnx

METHOD = "static, ranges by minimum and maximum, weights per channel, QDQ"


def int8_writer(bundle: Bundle, calibrated_on: Pictures) -> Writer:
    """What writes a model as ONNX in 8 bits.

    Args:
        bundle: the model.
        calibrated_on: readable images whose activations give the ranges.
    """
    proto, inside = graph_proto(bundle)
    quantised = _quantised(proto, inside, bundle, calibrated_on)
    return lambda description, path: write(quantised, description, path)


def _quantised(proto: onnx.ModelProto, inside: set[str], bundle: Bundle, calibrated_on: Pictures) -> onnx.ModelProto:
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="automl-vision-int8-") as folder:
        plain, prepared, small = (str(Path(folder) / f"{name}.onnx") for name in ("plain", "prepared", "small"))
        onnx.save(proto, plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            small,
            _reader(bundle, calibrated_on),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[node.name for node in onnx.load(prepared).graph.node if node.name not in inside],
            calibrate_method=CalibrationMethod.MinMax,
        )
        quantised = onnx.load(small)
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def _reader(bundle: Bundle, pictures: Pictures) -> Any:
    """The images one by one, as onnxruntime asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    sides, how = sides_of(bundle), bundle.preprocessing
    names = input_names(sides)

    class Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
        """Gives one batch of one image at a time, then None."""

        def __init__(self) -> None:
            self._left = iter(pictures.sources)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            source = next(self._left, None)
            if source is None:
                return None
            made = squares(open_rgb(source, how.decode_side).pixels, sides, how.resize)
            return {name: each.transpose(2, 0, 1)[None].copy() for name, each in zip(names, made, strict=True)}

    return Reader()
