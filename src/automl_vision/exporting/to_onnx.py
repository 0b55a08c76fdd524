"""ONNX: one file, any batch size, from uint8 squares to probabilities. The only door to onnx and to torch.onnx.

torch's exporter (`dynamo=True`) needs onnxscript.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from automl_vision.bundle import Bundle
from automl_vision.errors import UsageError
from automl_vision.exporting.graph import captured, input_names, sides_of
from automl_vision.model_description import KEY, OUTPUT, ModelDescription
from automl_vision.onnx_predictor import DIGEST_KEY, LARGEST_FILE, NO_DIGEST, with_digest

if TYPE_CHECKING:
    import onnx

#: Operator set of the files; the first with GELU as one operator.
OPSET = 20
#: What the exporter writes about each node: lines of source code with paths of this machine, among others.
_SCOPES = "pkg.torch.onnx.name_scopes"
_INSIDE = ".network"  # of the name of a module: what a network does, and neither normalisation nor voting

Writer = Callable[[ModelDescription, Path], None]


def onnx_writer(bundle: Bundle) -> Writer:
    """What writes a model as ONNX, with a description that may differ from time to time.

    Raises:
        UsageError: the model is larger than the format can hold.
    """
    proto, _ = graph_proto(bundle)
    return lambda description, path: write(proto, description, path)


def graph_proto(bundle: Bundle) -> tuple[onnx.ModelProto, set[str]]:
    """The checked graph without description, and the names of the nodes that belong to a network.

    Raises:
        UsageError: the model is larger than the format can hold.
    """
    import onnx

    _require_room(bundle)
    program = torch.onnx.export(
        captured(bundle),
        dynamo=True,
        opset_version=OPSET,
        input_names=input_names(sides_of(bundle)),
        output_names=[OUTPUT],
        verbose=False,
    )
    assert program is not None  # noqa: S101 - `dynamo=True` gives one
    proto: onnx.ModelProto = program.model_proto
    inside = {node.name for node in proto.graph.node if _is_inside(node)}
    _bare(proto)
    onnx.checker.check_model(proto, full_check=True)
    return proto, inside


def write(proto: onnx.ModelProto, description: ModelDescription, path: Path) -> None:
    """Write a graph with its description and a digest over all bytes.

    Raises:
        OSError: the file cannot be written.
    """
    from onnx.helper import set_model_props

    described = description.with_details(opset=OPSET)
    set_model_props(proto, {KEY: described.to_json(), DIGEST_KEY: NO_DIGEST})
    path.write_bytes(with_digest(proto.SerializeToString()))


def _require_room(bundle: Bundle) -> None:
    count = sum(each.numel() for network in bundle.networks for each in network.state_dict.values())
    if 4 * count > 0.95 * LARGEST_FILE:
        raise UsageError(
            "the model is too large for one ONNX file", value=f"{count:,} weights", fix="use --format torch-export"
        )


def _is_inside(node: onnx.NodeProto) -> bool:
    return any(_INSIDE in each.value for each in node.metadata_props if each.key == _SCOPES)


def _bare(proto: onnx.ModelProto) -> None:
    """Take out what tells of this machine, and give the free dimension its name."""
    proto.producer_name = "automl-vision"
    for part in (*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    proto.graph.ClearField("metadata_props")
    proto.graph.ClearField("value_info")
    proto.ClearField("metadata_props")
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
