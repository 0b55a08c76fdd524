"""Which operators an ONNX file uses, read off its bytes: without the package onnx, and before anything runs them.

The wire format of protocol buffers (https://protobuf.dev/programming-guides/encoding/), and the numbers of the fields
in onnx.proto. What the runtime reads in another way would be a hole, so that whatever is odd is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

#: Operators that compute tensors of others, each once: all of the default domain but loops, branches, sequences, texts,
#: pictures and chance. torch's exporter writes some of them; which depends on the backbone.
OPERATORS = frozenset(
    re.findall(
        r"\w+",
        """
    Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization
    BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast CastLike Ceil Celu CenterCropPad
    Clip Col2Im Compress Concat Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumProd CumSum DFT
    DeformConv DepthToSpace DequantizeLinear Det Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand
    EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
    Greater GreaterOrEqual GridSample GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax
    Identity InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
    LpNormalization LpPool MatMul MatMulInteger Max MaxPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization
    MelWeightMatrix Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow QLinearConv
    QLinearMatMul QuantizeLinear RMSNormalization RNN Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
    ReverseSequence RoiAlign RotaryEmbedding Round STFT Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid
    Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh
    TensorScatter ThresholdedRelu Tile TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor
    """,
    )
)
_DOMAINS = frozenset((b"", b"ai.onnx"))

# Numbers of fields in onnx.proto.
_MODEL_GRAPH, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 20, 25
_GRAPH_NODE = 1
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_GRAPHS = frozenset((6, 11))

_VARINT, _EIGHT_BYTES, _COUNTED, _FOUR_BYTES = 0, 1, 2, 5
_LONGEST = {"tag": 5, "value": 10}  # bytes of a number


def check_operators(data: bytes) -> None:
    """Refuse a model that does anything but compute each of its tensors once.

    Args:
        data: of the file.

    Raises:
        ValueError: it is no model, or has an operator that is not in `OPERATORS`, a graph in a graph, a function or a
            training graph.
    """
    for number, value in _fields(memoryview(data)):
        if number in (_MODEL_TRAINING, _MODEL_FUNCTIONS):
            raise ValueError("it has functions of its own")
        if number == _MODEL_GRAPH:
            for _, node in _only(value, _GRAPH_NODE):
                _check_node(node)


def _check_node(node: memoryview) -> None:
    operators: list[bytes] = []
    for number, value in _fields(node):
        if number == _NODE_OPERATOR:
            operators.append(bytes(value))
        elif number == _NODE_DOMAIN and bytes(value) not in _DOMAINS:
            raise ValueError(f"it has operators of {bytes(value)[:40]!r}")
        elif number == _NODE_ATTRIBUTE and any(inner in _ATTRIBUTE_GRAPHS for inner, _ in _fields(value)):
            raise ValueError("it has a graph in a graph")
    if len(operators) != 1 or operators[0].decode("ascii", "replace") not in OPERATORS:
        raise ValueError(f"it has the operator {b', '.join(operators)[:40]!r}, which no classifier needs")


def _only(message: memoryview, wanted: int) -> Iterator[tuple[int, memoryview]]:
    return (each for each in _fields(message) if each[0] == wanted)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field; numbers have no content here."""
    at = 0
    while at < len(message):
        tag, at = _number(message, at, _LONGEST["tag"])
        kind, size = tag & 7, 0
        if kind == _VARINT:
            _, at = _number(message, at, _LONGEST["value"])
        elif kind == _COUNTED:
            size, at = _number(message, at, _LONGEST["tag"])
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            size = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError("it is no ONNX model")
        if tag >> 3 == 0 or at + size > len(message):
            raise ValueError("it is no ONNX model, or was cut off")
        yield tag >> 3, message[at : at + size]
        at += size


def _number(message: memoryview, at: int, longest: int) -> tuple[int, int]:
    """A number of up to so many bytes, seven bits in each, and where what follows begins."""
    value = 0
    for place, byte in enumerate(message[at : at + longest]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            if longest == _LONGEST["tag"] and value >= 1 << 32:
                break
            return value, at + place + 1
    raise ValueError("it is no ONNX model, or was cut off")
