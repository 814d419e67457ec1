"""Arrow tables as pandas DataFrames, without what pandas does to missing values by default."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """A table as a DataFrame, every value as it is.

    A column of whole numbers in which some are missing is `Int64`, one of truth values `boolean`: by itself pandas
    would make floats of the ones, which hold 53 bits, and objects of the others.
    """
    frame: pd.DataFrame = table.to_pandas(integer_object_nulls=True)
    lacking = {field.name: field.type for field in table.schema if table[field.name].null_count}
    kinds = {name: "Int64" for name, kind in lacking.items() if pa.types.is_integer(kind)}
    kinds |= {name: "boolean" for name, kind in lacking.items() if pa.types.is_boolean(kind)}
    return frame.astype(kinds) if kinds else frame
