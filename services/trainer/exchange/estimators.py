"""Estimators of scikit-learn that were trained elsewhere, from the skops files in which they come.

A skops file says which types are made when it is loaded. Only scikit-learn's own are, those of the reviewed list, and
those that the definitions trust; for any other the file is refused before anything in it is made.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Sequence
from typing import Any

import sklearn
import skops.io
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from modelmill.errors import InvalidRequest, sentence
from modelmill.packages.estimator_serving import load_estimator
from modelmill.packages.package import Input
from services.trainer.exchange.agreement import require_count, require_names

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
