"""A model that was trained elsewhere, as it is offered to the trainer: one file, and what is known about it.

A client sends the file as it is; what it says about it is checked against the file and the model's declaration.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

OfferFormat = Literal["onnx", "skops"]
MAX_NAME = 250
MAX_ENTRIES = 2000
"""Of each of an offer's mappings."""
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Scalar = str | bool | int | float
FiniteNumber = Annotated[float, Field(allow_inf_nan=False)]


class Offer(BaseModel):
    """What is said about the file of a model that was trained elsewhere."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: OfferFormat = Field(description="onnx or skops")
    """What the file is; a pickle is never taken."""
    file: str = Field("", max_length=MAX_NAME, description="a file's name")
    """Its name, for the run's record."""
    classes: list[Scalar] | None = Field(None, min_length=2, description="a list of the labels, such as [0, 1]")
    """The labels in the order of the probabilities' columns, where the file does not tell."""
    columns: dict[Name, str] | None = Field(None, max_length=MAX_ENTRIES, description="an object of names and types")
    """The names of its inputs in their order, to their types as MLflow calls them, such as `double`."""
    example: dict[str, Scalar | None] | None = Field(None, description="an object of names and values")
    """One row of input values."""
    origin: dict[Name, str] = Field({}, max_length=MAX_ENTRIES, description="an object of names and texts")
    """Where it comes from, such as `mlflow_run`."""
    params: dict[Name, str] = Field({}, max_length=MAX_ENTRIES, description="an object of names and texts")
    """Parameters that were recorded where it was trained."""
    metrics: dict[Name, FiniteNumber] = Field(
        {}, max_length=MAX_ENTRIES, description="an object of names and finite numbers"
    )
    """Metrics that were recorded there, on rows that are not known here."""

    def to_json(self) -> dict[str, Any]:
        """The offer as it is sent."""
        return self.model_dump(exclude_defaults=True)
