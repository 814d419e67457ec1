"""ONNX graphs that were made elsewhere, made fit to be served: checked, and put into the shape that is served here.

What is put right: the names of a matrix and of its columns as converters write them, inputs of whole numbers (which get
a Cast), the order of the outputs, and the list of maps (ZipMap) that skl2onnx puts in place of the probabilities.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto, external_data_helper, helper

from modelmill.errors import InvalidRequest, sentence
from modelmill.packages.package import MATRIX, Input, Layout, Precision
from services.trainer.evaluation.answers import Task
from services.trainer.exchange.agreement import require_count, require_names

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)
CASTABLE = (*FLOATS, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.FLOAT16)
LABELS = (TensorProto.INT64, TensorProto.INT32, TensorProto.STRING, TensorProto.BOOL)
CLASS_ATTRIBUTES = ("classlabels_int64s", "classlabels_ints", "classlabels_strings")
ZIPMAP = "ZipMap"


@dataclass(frozen=True)
class ForeignGraph:
    """A graph that can be served, and what it says about itself."""

    content: bytes
    layout: Layout
    tensor_dtype: Precision
    task: Task
    classes: list[Any] | None
    """Where a node of it names them."""


def read_graph(content: bytes, model: str, inputs: Sequence[Input]) -> ForeignGraph:
    """The graph in an ONNX file, which takes the declared inputs.

    Raises:
        InvalidRequest: for anything else.
    """
    proto = _parsed(content)
    classes = _without_zipmap(proto.graph)
    task = _outputs(proto.graph)
    layout, precision = _inputs(proto.graph, model, inputs)
    return ForeignGraph(
        proto.SerializeToString(),
        layout,
        precision,
        task,
        (classes or _classes(proto.graph)) if task == "classification" else None,
    )


def _parsed(content: bytes) -> Any:
    try:
        proto = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's
        raise InvalidRequest(f"the file is not an ONNX model: {sentence(error, 300)}") from None
    # First, because the checker looks for them.
    if any(external_data_helper.uses_external_data(tensor) for tensor in _tensors(proto)):
        raise InvalidRequest(
            "the ONNX model keeps weights in other files; save it as one: onnx.save(model, path,"
            " save_as_external_data=False)"
        )
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise InvalidRequest(f"the file is not an ONNX model: {sentence(error, 300)}") from None
    return proto


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor in a message, in graphs inside it and in functions, too."""
    for kind, value in message.ListFields():
        if kind.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                if isinstance(part, TensorProto):
                    yield part
                else:
                    yield from _tensors(part)


def _without_zipmap(graph: Any) -> list[Any] | None:
    """Let the graph give its probabilities as a tensor, not as a list of maps; returns the classes that these name."""
    named = None
    outputs = {item.name: item for item in graph.output}
    for node in [node for node in graph.node if node.op_type == ZIPMAP and node.output[0] in outputs]:
        named = next((values for item in node.attribute if (values := _values(item))), None)
        width = len(named) if named else None
        outputs[node.output[0]].CopyFrom(helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, [None, width]))
        graph.node.remove(node)
    return named


def _outputs(graph: Any) -> Task:
    """Put the outputs in order: labels, then probabilities; or numbers alone."""
    kinds = {item.name: item.type.tensor_type.elem_type for item in graph.output}
    labels = [item for item in graph.output if kinds[item.name] in LABELS]
    numbers = [item for item in graph.output if kinds[item.name] in FLOATS]
    if len(labels) + len(numbers) != len(graph.output) or len(labels) > 1 or len(numbers) > 1 or not graph.output:
        shown = ", ".join(f"{name} ({_type(kind)})" for name, kind in kinds.items())
        raise InvalidRequest(
            f"the graph gives {shown or 'nothing'}; expected labels and maybe their probabilities, or one number"
        )
    ordered = [type(item).FromString(item.SerializeToString()) for item in (*labels, *numbers)]
    del graph.output[:]
    graph.output.extend(ordered)
    return "classification" if labels else "regression"


def _inputs(graph: Any, model: str, inputs: Sequence[Input]) -> tuple[Layout, Precision]:
    """Let the graph take what is fed here; how that is."""
    weights = {item.name for item in graph.initializer}
    taken = [item for item in graph.input if item.name not in weights]
    unknown = [i for i in taken if i.type.tensor_type.elem_type not in (*CASTABLE, TensorProto.STRING)]
    if unknown or not taken:
        shown = ", ".join(f"{i.name} ({_type(i.type.tensor_type.elem_type)})" for i in unknown)
        raise InvalidRequest(f"the graph takes {shown or 'nothing'}; expected tensors of numbers or texts")
    for item in taken:
        if (shape := _shape(item)) and shape[0]:
            raise InvalidRequest(
                f"the graph takes {item.name!r} in the shape {shape}, always {shape[0]} rows at a time; expected any"
                " number of them: export it with a first dimension that varies, such as FloatTensorType([None, ...])"
            )
    texts = any(item.dtype == "str" for item in inputs)
    width = _shape(taken[0])[1:2]
    if len(taken) == 1 and not texts and (len(inputs) > 1 or taken[0].name != inputs[0].name):
        if width and width[0]:
            require_count("the graph", width[0], model, inputs)
        _rename(graph, taken[0], MATRIX)
        layout: Layout = "matrix"
    else:
        _columns(graph, taken, model, inputs)
        layout = "columns"
    double = any(item.type.tensor_type.elem_type == TensorProto.DOUBLE for item in taken)
    for item in taken:
        _cast(graph, item, TensorProto.DOUBLE if double else TensorProto.FLOAT, inputs)
    return layout, "float64" if double else "float32"


def _columns(graph: Any, taken: Sequence[Any], model: str, inputs: Sequence[Input]) -> None:
    """One tensor [rows, 1] an input, of which a converter may have written the name with `_` for other letters."""
    plain = {re.sub(r"\W", "_", item.name): item.name for item in inputs}
    declared = {item.name: item for item in inputs}
    for item in taken:
        if item.name not in declared and item.name in plain:
            _rename(graph, item, plain[item.name])
    # Tensors are fed by name, so their order in the graph does not matter.
    found = {item.name: item for item in taken}
    order = [i.name for i in inputs if i.name in found] + [name for name in found if name not in declared]
    require_names("the graph", order, model, inputs)
    for item in taken:
        shape, text = _shape(item), item.type.tensor_type.elem_type == TensorProto.STRING
        if text != (declared[item.name].dtype == "str"):
            raise InvalidRequest(
                f"the graph takes {item.name!r} as {_type(item.type.tensor_type.elem_type)}; model {model!r} declares"
                f" {declared[item.name].dtype}"
            )
        if len(shape) != 2 or shape[1] not in (None, 1):
            raise InvalidRequest(f"the graph takes {item.name!r} in the shape {shape}; expected [rows, 1]")


def _cast(graph: Any, item: Any, kind: int, inputs: Sequence[Input]) -> None:
    """Let `item` be of `kind`, with a Cast to what its nodes expect."""
    expected = item.type.tensor_type.elem_type
    if expected in (TensorProto.STRING, kind):
        return
    fed = [i for i in inputs if item.name in (MATRIX, i.name)]
    if expected not in (*FLOATS, TensorProto.FLOAT16) and (missing := [i.name for i in fed if i.nullable]):
        raise InvalidRequest(
            f"the graph takes {item.name!r} as {_type(expected)}, which cannot be missing;"
            f" {', '.join(map(repr, missing))} may be"
        )
    inner = f"{item.name}__{_type(expected)}"
    for node in graph.node:
        node.input[:] = [inner if name == item.name else name for name in node.input]
    graph.node.insert(0, helper.make_node("Cast", [item.name], [inner], to=expected))
    item.type.tensor_type.elem_type = kind


def _rename(graph: Any, item: Any, name: str) -> None:
    before, item.name = item.name, name
    for node in graph.node:
        node.input[:] = [name if given == before else given for given in node.input]


def _classes(graph: Any) -> list[Any] | None:
    """The classes that the nodes of the graph name, if they agree."""
    found = [values for node in graph.node for item in node.attribute if (values := _values(item))]
    return found[0] if found and all(values == found[0] for values in found) else None


def _values(attribute: Any) -> list[Any] | None:
    if attribute.name not in CLASS_ATTRIBUTES:
        return None
    return [text.decode() for text in attribute.strings] or list(attribute.ints) or None


def _shape(item: Any) -> list[int | None]:
    return [part.dim_value or None for part in item.type.tensor_type.shape.dim]


def _type(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)).lower()
