"""LightGBM's estimators in ONNX graphs, through onnxmltools (`pip install 'modelmill[lightgbm]'`).

XGBoost has no such module: of the graphs that onnxmltools 1.16 makes of XGBoost 3, those in a pipeline answer otherwise
than the estimator, and others are refused for the names of their columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

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
