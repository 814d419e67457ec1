"""ONNX graphs that were made elsewhere, made fit to be served: checked, and put into the shape that is served here.

What is put right: the names of a matrix and of its columns as converters write them, inputs of whole numbers (which get
a Cast), the order of the outputs, and the list of maps (ZipMap) that skl2onnx puts in place of the probabilities.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import sklearn
import skops.io
from onnx import TensorProto, external_data_helper, helper
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from modelmill.columns.types import TYPES as COLUMN_TYPES
from modelmill.columns.types import Column
from modelmill.errors import InvalidRequest, sentence
from modelmill.packages.estimator_serving import load_estimator
from modelmill.packages.package import MATRIX, Input, Layout, Precision
from services.trainer.evaluation.answers import Task

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


# --- estimators of scikit-learn that were trained elsewhere, from the skops files in which they come.
#
# A skops file says which types are made when it is loaded. Only scikit-learn's own are, those of the reviewed list,
# and those that the definitions trust; for any other the file is refused before anything in it is made.

LARGEST = 4 << 30
"""Bytes that a file may be unpacked."""
PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"(dp", b"ccopy_reg")


def read_estimator(content: bytes, model: str, inputs: Sequence[Input], trusted: Collection[str] = ()) -> Any:
    """The fitted estimator in a skops file, which takes the declared inputs; `trusted` are types of the user's own.

    Raises:
        InvalidRequest: for anything else.
    """
    estimator = _loaded(content, trusted)
    if not hasattr(estimator, "predict"):
        raise InvalidRequest(
            f"the file holds a {type(estimator).__name__}; expected a fitted estimator of scikit-learn"
        )
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise InvalidRequest(f"estimator {type(estimator).__name__} is not fitted; fit it before it is saved") from None
    except TypeError as error:
        raise InvalidRequest(f"the file holds no estimator of scikit-learn: {error}") from None
    what = f"estimator {type(estimator).__name__}"
    names, count = getattr(estimator, "feature_names_in_", None), getattr(estimator, "n_features_in_", None)
    if names is not None:
        require_names(what, [str(name) for name in names], model, inputs)
    elif count is not None:
        require_count(what, int(count), model, inputs)
    return estimator


def untrusted_types(content: bytes) -> list[str]:
    """The types in a skops file that skops does not trust by itself."""
    found: list[str] = sorted(set(skops.io.get_untrusted_types(data=content)))
    return found


def _loaded(content: bytes, trusted: Collection[str]) -> Any:
    if content.startswith(PICKLE_STARTS):
        raise InvalidRequest(
            "the file is a pickle, which runs code when it is loaded and is never taken; save the estimator with"
            " skops.io.dump(estimator, 'model.skops')"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(item.file_size for item in archive.infolist())
        if size > LARGEST:
            raise InvalidRequest(f"the skops file is {size} bytes unpacked; expected at most {LARGEST}")
        return load_estimator(content, trusted)
    except InvalidRequest:
        raise
    except Exception as error:  # zipfile, json, skops and scikit-learn each have their own
        raise InvalidRequest(
            f"the file cannot be read as skops by scikit-learn {sklearn.__version__} and skops {skops.__version__}:"
            f" {sentence(error, 300)}"
        ) from None


# --- whether a model that was trained elsewhere is what the definitions declare: its inputs, its task, its classes

NUMBERS = ("double", "float", "long", "integer")
TYPES = {"float": NUMBERS, "int": NUMBERS, "bool": ("boolean", *NUMBERS), "str": ("string",)}
"""Declared type to what MLflow may call it; all numbers are fed to a model as floating-point numbers."""


def require_names(what: str, names: Sequence[str], model: str, inputs: Sequence[Input]) -> None:
    """Refuse a model that takes other columns than the declared ones, or takes them in another order.

    Raises:
        InvalidRequest: naming the columns.
    """
    declared = [item.name for item in inputs]
    if list(names) == declared:
        return
    lacking = [name for name in declared if name not in names]
    unknown = [name for name in names if name not in declared]
    if lacking or unknown:
        wrong = " and ".join(
            [f"does not take {_listed(lacking)}"] * bool(lacking)
            + [f"takes {_listed(unknown)}, not declared"] * bool(unknown)
        )
        raise InvalidRequest(f"{what} {wrong}; model {model!r} declares {_listed(declared)}")
    raise InvalidRequest(
        f"{what} takes its columns in the order {_listed(names)}; model {model!r} declares {_listed(declared)}: declare"
        " them in its order, features before request inputs, or train it in this one"
    )


def require_count(what: str, count: int, model: str, inputs: Sequence[Input]) -> None:
    """Refuse a model that takes another number of columns than are declared."""
    if count != len(inputs):
        raise InvalidRequest(
            f"{what} takes {count} columns; model {model!r} declares {len(inputs)}:"
            f" {_listed([item.name for item in inputs])}"
        )


def require_types(columns: Mapping[str, str], model: str, inputs: Sequence[Input]) -> None:
    """Refuse a signature, name to MLflow's type, that does not agree with the declared inputs.

    Raises:
        InvalidRequest: naming the column and both types.
    """
    require_names("its signature", list(columns), model, inputs)
    for item in inputs:
        if columns[item.name] not in TYPES[item.dtype]:
            raise InvalidRequest(
                f"its signature has column {item.name!r} as {columns[item.name]}; model {model!r} declares"
                f" {item.dtype}, which is {' or '.join(TYPES[item.dtype])}"
            )


def require_task(task: Task, declared: Task, model: str) -> None:
    """Refuse a classifier for a model that is declared with a regressor, and the other way round."""
    if task != declared:
        raise InvalidRequest(f"the file holds a model for {task}; model {model!r} is declared for {declared}")


def as_labels(classes: Sequence[Any], label: Column, model: str) -> list[Any]:
    """The classes as values of the declared label's type.

    Raises:
        InvalidRequest: for classes of another type.
    """
    kinds = (bool, int) if label.dtype == "bool" else COLUMN_TYPES[label.dtype].values
    fit = all(isinstance(c, kinds) and (label.dtype == "bool" or not isinstance(c, bool)) for c in classes)
    if label.dtype == "bool":
        fit = fit and set(classes) <= {0, 1}
    if not fit or len(set(classes)) != len(classes):
        raise InvalidRequest(
            f"its classes are {_listed(classes)}; the label {label.name!r} of model {model!r} is {label.dtype}"
        )
    return [COLUMN_TYPES[label.dtype].python(c) for c in classes]


def _listed(values: Sequence[Any]) -> str:
    shown = ", ".join(repr(value) for value in values[:20])
    return f"{shown} and {len(values) - 20} more" if len(values) > 20 else shown
