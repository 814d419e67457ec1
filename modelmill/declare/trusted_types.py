"""Which types an estimator that is served by scikit-learn may be made of, beside those that skops itself trusts.

skops trusts the estimators of scikit-learn, its links and losses, NumPy's and SciPy's element-wise functions and
their plain data. The types below are what such estimators hold as well once they are fitted. Each was looked at for
what happens when it is made from a file: it takes its attributes or its arrays and calls nothing that the file names.
A function is only held, and called when a model predicts, with the values of a request. Nothing here reads a file,
opens a connection, or makes code of text, so none of them lets whoever writes a package run code.

What this does not promise: arrays of a tree that were made up by hand can lead its compiled code astray. That is what
the SHA-256 of each file, and who may write to the storage, are for.

A type of the user's own is added with `Model(..., trusted=["mymodule.MyTransformer"])`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

FULL_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def checked(owner: str, given: Sequence[str]) -> tuple[str, ...]:
    """The types that a model trusts, as declared.

    Raises:
        ValueError: for anything but a list of full names.
    """
    if isinstance(given, str):
        raise ValueError(f"{owner}: trusted={given!r}; expected a list, [{given!r}]")
    for name in given:
        if not isinstance(name, str) or not FULL_NAME.fullmatch(name):
            raise ValueError(f"{owner}: trusted holds {name!r}; expected the full name of a type, 'mymodule.MyType'")
    return tuple(given)


def _in(module: str, names: str) -> set[str]:
    return {f"{module}.{name}" for name in names.split()}


TRUSTED: frozenset[str] = frozenset(
    # Trees and their nodes, which are arrays.
    _in("sklearn.tree._tree", "Tree")
    | _in("sklearn.ensemble._hist_gradient_boosting.predictor", "TreePredictor")
    # Indexes of neighbours and the distances that they measure by; not the distance by a Python function.
    | _in("sklearn.neighbors._kd_tree", "KDTree KDTree64")
    | _in("sklearn.neighbors._ball_tree", "BallTree BallTree64")
    | _in(
        "sklearn.metrics._dist_metrics",
        "EuclideanDistance64 SEuclideanDistance64 ManhattanDistance64 ChebyshevDistance64 MinkowskiDistance64"
        " MahalanobisDistance64 HammingDistance64 CanberraDistance64 BrayCurtisDistance64 JaccardDistance64"
        " DiceDistance64 RogersTanimotoDistance64 RussellRaoDistance64 SokalSneathDistance64 HaversineDistance64",
    )
    # Kernels of Gaussian processes, which hold numbers and each other.
    | _in(
        "sklearn.gaussian_process.kernels",
        "CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation Matern PairwiseKernel Product RBF"
        " RationalQuadratic Sum WhiteKernel",
    )
    | _in("sklearn.gaussian_process._gpc", "_BinaryGaussianProcessClassifierLaplace")
    # Losses that skops does not list; their state is numbers.
    | _in("sklearn._loss.loss", "HalfTweedieLoss HalfTweedieLossIdentity")
    # What estimators that are made of others keep beside them.
    | _in("sklearn.calibration", "_CalibratedClassifier _SigmoidCalibration _TemperatureScaling")
    | _in("sklearn.multiclass", "_ConstantPredictor")
    | _in("sklearn.utils._bunch", "Bunch")
    | _in("sklearn.utils._metadata_requests", "MetadataRequest MethodMetadataRequest")
    # How a network or a clustering was fitted; nothing of it is used afterwards.
    | _in("sklearn.neural_network._stochastic_optimizers", "AdamOptimizer SGDOptimizer")
    | _in("sklearn.cluster._bisect_k_means", "_BisectingTree")
    | _in("sklearn.cluster._kmeans", "_kmeans_single_lloyd _kmeans_single_elkan")
    # How a search or a threshold was chosen: splits and scorers, which hold a metric.
    | _in(
        "sklearn.model_selection._split",
        "GroupKFold GroupShuffleSplit KFold LeaveOneGroupOut LeaveOneOut RepeatedKFold RepeatedStratifiedKFold"
        " ShuffleSplit StratifiedGroupKFold StratifiedKFold StratifiedShuffleSplit TimeSeriesSplit",
    )
    | _in("sklearn.metrics._scorer", "_CurveScorer _PassthroughScorer _Scorer")
    | _in(
        "sklearn.metrics._classification",
        "accuracy_score balanced_accuracy_score brier_score_loss f1_score jaccard_score log_loss matthews_corrcoef"
        " precision_score recall_score",
    )
    | _in("sklearn.metrics._ranking", "average_precision_score roc_auc_score top_k_accuracy_score")
    | _in(
        "sklearn.metrics._regression",
        "explained_variance_score max_error mean_absolute_error mean_absolute_percentage_error mean_gamma_deviance"
        " mean_poisson_deviance mean_squared_error mean_squared_log_error median_absolute_error r2_score"
        " root_mean_squared_error root_mean_squared_log_error",
    )
    # Which columns a pipeline takes, and by what they were chosen.
    | _in("sklearn.compose._column_transformer", "make_column_selector")
    | _in("sklearn.feature_selection._univariate_selection", "chi2 f_classif f_regression r_regression")
    | _in("sklearn.feature_selection._mutual_info", "mutual_info_classif mutual_info_regression")
    # The check of categories in histogram gradient boosting: a function with some of its arguments, held as such.
    | _in("functools", "partial")
    | _in("sklearn.utils.validation", "check_array")
    # Splines, and NumPy's own: types of arrays, and functions of arrays that pipelines are often made of.
    | _in("scipy.interpolate._bsplines", "BSpline")
    | _in("scipy._lib.array_api_compat.numpy._aliases", "asarray")
    | _in("numpy", "dtype max mean median min nan_to_num sum")
)
