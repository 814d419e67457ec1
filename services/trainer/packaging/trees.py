"""Trees in ONNX graphs, made to decide as scikit-learn's own do, where skl2onnx's do not.

- Where a missing value goes: skl2onnx sends it right in scikit-learn's trees, whichever side they learnt.
- On which side of a threshold a value is, in a graph of double precision. scikit-learn's trees round what they are
  given to single precision, whatever was done to it before in double: so a Cast does. Those of histogram gradient
  boosting compare in double, and graphs have thresholds in single precision: so each value becomes its rank among all
  thresholds of its column, counted in double, and the trees compare ranks, which single precision holds exactly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelmill.packages.package import Precision

MAX_RANKED_THRESHOLDS = 10_000
"""Thresholds that values are ranked among: for 1,000 rows at once it takes 5 bytes of each for each row."""

Step = tuple[str, list[str], str, dict[str, Any]]
"""A node to be made: operator, inputs, the end of its output's name, attributes."""


@dataclass(frozen=True)
class Tree:
    """The nodes of one tree, in the order in which skl2onnx writes them."""

    features: np.ndarray
    """[nodes] columns; -1 for a leaf."""
    thresholds: np.ndarray
    """[nodes] in double precision; infinite where the split is whether there is a value."""
    left: np.ndarray
    """[nodes] children; -1 for a leaf."""
    missing_left: np.ndarray
    """[nodes] whether a missing value goes left."""
    single: bool
    """Whether it is given values in single precision."""

    @property
    def shape(self) -> bytes:
        """What tells it from others but for thresholds."""
        return self.features.tobytes() + self.left.tobytes()


def mended(content: bytes, estimator: Any, precision: Precision) -> bytes:
    """The graph of `estimator` with its trees put right, in so far as they are found in it."""
    known: defaultdict[bytes, list[Tree]] = defaultdict(list)
    for tree in _trees(estimator):
        known[tree.shape].append(tree)
    if not known:
        return content
    model = onnx.load_model_from_string(content)
    nodes, before = [], list(model.graph.node)
    for number, node in enumerate(before):
        trees = _found(node, known) if node.op_type.startswith("TreeEnsemble") else None
        if trees is None:
            nodes.append(node)
            continue
        _set(node, "nodes_missing_value_tracks_true", np.concatenate([tree.missing_left for tree in trees]).astype(int))
        nodes += [node] if precision == "float32" else _exact(model.graph, node, trees, f"trees_{number}")
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    mended: bytes = model.SerializeToString()
    return mended


def _trees(estimator: Any) -> Iterator[Tree]:
    """All trees in a fitted estimator of scikit-learn, and in those inside it."""
    seen, waiting = set(), [estimator]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list | tuple) or (isinstance(one, np.ndarray) and one.dtype == object):
            waiting.extend(one)
        elif isinstance(one, dict):
            waiting.extend(one.values())
        elif hasattr(one, "children_left") and hasattr(one, "missing_go_to_left"):
            leaf = one.children_left < 0
            yield _tree(leaf, one.feature, one.threshold, one.children_left, one.missing_go_to_left, True)
        elif hasattr(one, "nodes") and hasattr(one, "binned_left_cat_bitsets"):
            n = one.nodes
            leaf = n["is_leaf"].astype(bool)
            yield _tree(leaf, n["feature_idx"], n["num_threshold"], n["left"], n["missing_go_to_left"], False)
        elif hasattr(one, "dump_model"):  # of LightGBM
            for nodes in trees(one):
                yield _of_graph(nodes)
        elif hasattr(one, "__dict__") and not isinstance(one, type) and id(one) not in seen:
            seen.add(id(one))
            waiting.extend(vars(one).values())


def _tree(leaf: Any, features: Any, thresholds: Any, left: Any, missing_left: Any, single: bool) -> Tree:
    return Tree(
        np.where(leaf, -1, np.asarray(features, np.int64)),
        np.where(leaf, 0, thresholds).astype(np.float64),
        np.where(leaf, -1, np.asarray(left, np.int64)),
        np.where(leaf, 0, missing_left).astype(np.bool_),
        single,
    )


def _of_graph(nodes: Mapping[str, np.ndarray]) -> Tree:
    leaf = np.asarray(nodes["nodes_modes"]).astype(bytes) == b"LEAF"
    missing_left = nodes["nodes_missing_value_tracks_true"]
    return _tree(
        leaf, nodes["nodes_featureids"], nodes["nodes_values"], nodes["nodes_truenodeids"], missing_left, False
    )


def _found(node: Any, known: Mapping[bytes, Sequence[Tree]]) -> list[Tree] | None:
    """The estimator's trees that a node of a graph holds, in its order; None where one of them is not known."""
    attributes = [item for item in node.attribute if item.name.startswith("nodes_")]
    held = {item.name: np.array(helper.get_attribute_value(item)) for item in attributes}
    starts = np.flatnonzero(np.diff(held["nodes_treeids"], prepend=-1))
    found = []
    for start, end in pairwise([*starts, len(held["nodes_treeids"])]):
        tree = _of_graph({name: values[start:end] for name, values in held.items()})
        same = (
            one
            for one in known.get(tree.shape, ())
            if np.allclose(one.thresholds, tree.thresholds, rtol=1e-6, atol=1e-30)
        )
        match = next(same, None)
        if match is None:
            return None
        found.append(match)
    return found


def _exact(graph: Any, node: Any, trees: Sequence[Tree], name: str) -> list[Any]:
    """The nodes by which a graph of double precision decides as `trees` do."""
    source, output = node.input[0], node.output[-1]
    single = {tree.single for tree in trees}
    columns = _thresholds(trees)
    if len(single) > 1 or (not any(single) and sum(map(len, columns)) > MAX_RANKED_THRESHOLDS):
        return [node]
    if any(single):
        _set(node, "nodes_values", np.concatenate([_floor(tree.thresholds) for tree in trees]).tolist())
        before = [helper.make_node("Cast", [source], [f"{name}_x"], to=TensorProto.FLOAT)]
    else:
        _set(node, "nodes_values", _ranks(trees, columns).tolist())
        before = _ranking(graph, source, columns, name)
    node.input[0], node.output[-1] = f"{name}_x", f"{name}_y"
    after = _refusing(graph, name) if any(single) else [helper.make_node("Identity", [f"{name}_y"], [f"{name}_z"])]
    types = {item.name: item.type.tensor_type.elem_type for item in graph.output}
    cast_anyway = [one.op_type for one in graph.node if output in one.input] == ["Cast"]
    kind = TensorProto.FLOAT if cast_anyway else types.get(output, TensorProto.DOUBLE)
    return [*before, node, *after, helper.make_node("Cast", [f"{name}_z"], [output], to=kind)]


def _refusing(graph: Any, name: str) -> list[Any]:
    """Nodes that leave no finite number of an answer to a value too large for single precision, which is refused."""
    graph.initializer.append(numpy_helper.from_array(np.array([1]), f"{name}_first"))
    steps: list[Step] = [
        ("IsInf", [f"{name}_x"], "infinite", {}),
        ("Cast", [f"{name}_infinite"], "ones", {"to": TensorProto.FLOAT}),
        ("ReduceSum", [f"{name}_ones", f"{name}_first"], "count", {}),
        ("Cast", [f"{name}_count"], "any", {"to": TensorProto.BOOL}),
        ("Not", [f"{name}_any"], "none", {}),
        ("Cast", [f"{name}_none"], "divisor", {"to": TensorProto.FLOAT}),
        ("Div", [f"{name}_y", f"{name}_divisor"], "z", {}),
    ]
    return _nodes(steps, name)


def _floor(thresholds: np.ndarray) -> np.ndarray:
    """The largest numbers of single precision that are not above the thresholds."""
    single = thresholds.astype(np.float32)
    return np.where(single > thresholds, np.nextafter(single, np.float32(-np.inf)), single)


def _thresholds(trees: Sequence[Tree]) -> list[np.ndarray]:
    """Of each column the thresholds, in order."""
    features, thresholds = _splits(trees)
    return [np.unique(thresholds[features == column]) for column in range(max(1, features.max() + 1))]


def _ranks(trees: Sequence[Tree], columns: Sequence[np.ndarray]) -> np.ndarray:
    """[nodes] how many thresholds of its column each threshold is above."""
    features, thresholds = _splits(trees)
    ranks = np.zeros(len(features))
    for column, own in enumerate(columns):
        here = features == column
        ranks[here] = np.searchsorted(own, thresholds[here])
    return ranks


def _splits(trees: Sequence[Tree]) -> tuple[np.ndarray, np.ndarray]:
    """[nodes] of all trees the columns and the thresholds."""
    return np.concatenate([tree.features for tree in trees]), np.concatenate([tree.thresholds for tree in trees])


def _ranking(graph: Any, source: str, columns: Sequence[np.ndarray], name: str) -> list[Any]:
    """Nodes that count how many thresholds of its column each value is above; a missing value stays missing."""
    table = np.full((1, len(columns), max(1, *map(len, columns))), np.inf)
    for number, own in enumerate(columns):
        table[0, number, : len(own)] = own
    constants = {
        "thresholds": table,
        "axis": np.array([2]),
        "used": np.arange(len(columns)),
        "nan": np.array(np.nan, np.float32),
    }
    for key, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(value, f"{name}_{key}"))
    steps: list[Step] = [
        ("Gather", [source, f"{name}_used"], "values", {"axis": 1}),
        ("Unsqueeze", [f"{name}_values", f"{name}_axis"], "each", {}),
        ("Greater", [f"{name}_each", f"{name}_thresholds"], "above", {}),
        ("Cast", [f"{name}_above"], "ones", {"to": TensorProto.FLOAT}),
        ("ReduceSum", [f"{name}_ones", f"{name}_axis"], "rank", {"keepdims": 0}),
        ("IsNaN", [f"{name}_values"], "missing", {}),
        ("Where", [f"{name}_missing", f"{name}_nan", f"{name}_rank"], "x", {}),
    ]
    return _nodes(steps, name)


def _nodes(steps: Sequence[Step], name: str) -> list[Any]:
    return [helper.make_node(op, given, [f"{name}_{made}"], **how) for op, given, made, how in steps]


def _set(node: Any, attribute: str, values: Any) -> None:
    kept = [item for item in node.attribute if item.name != attribute]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(attribute, list(values))])


# --- LightGBM's estimators in ONNX graphs, through onnxmltools (`pip install 'modelmill[lightgbm]'`).
#
# XGBoost has no such module: of the graphs that onnxmltools 1.16 makes of XGBoost 3, those in a pipeline answer
# otherwise than the estimator, and others are refused for the names of their columns.

OPSET = {"": 18, "ai.onnx.ml": 3}
"""Versions of the operator sets that onnxmltools knows trees in."""


def opset(estimator: Any) -> dict[str, int] | None:
    """The operator sets that a graph of `estimator` is to use, where there is something of LightGBM in it, whose
    converters are made known to skl2onnx; otherwise None, for those that skl2onnx uses by itself.
    """
    inside = (estimator, *estimator.get_params(deep=True).values())
    if any(type(part).__module__.startswith("lightgbm.") for part in inside) and _registered():
        return OPSET
    return None


def trees(booster: Any) -> Iterator[dict[str, np.ndarray]]:
    """The nodes of each tree of a booster as graphs have them, but with thresholds in double precision."""
    if not _registered():
        return
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import (
        _parse_tree_structure,
        get_default_tree_classifier_attribute_pairs,
    )

    for one in booster.dump_model()["tree_info"]:
        nodes = get_default_tree_classifier_attribute_pairs()
        _parse_tree_structure(0, 0, 1.0, one["tree_structure"], nodes)
        order = np.argsort(nodes["nodes_nodeids"])
        yield {name: np.array(values)[order] for name, values in nodes.items() if name.startswith("nodes_")}


@cache
def _registered() -> bool:
    """Whether skl2onnx knows the converters; without onnxmltools it does not."""
    try:
        from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
    except ImportError:
        return False
    from lightgbm import LGBMClassifier, LGBMRegressor
    from skl2onnx import update_registered_converter
    from skl2onnx.common import shape_calculator

    update_registered_converter(
        LGBMClassifier,
        "LightGbmLGBMClassifier",
        shape_calculator.calculate_linear_classifier_output_shapes,
        convert_lightgbm,
        options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
    )
    update_registered_converter(
        LGBMRegressor,
        "LightGbmLGBMRegressor",
        shape_calculator.calculate_linear_regressor_output_shapes,
        convert_lightgbm,
        options={"split": None},
    )
    return True
