"""What an evaluation has beside its metrics, for the model's card: figures, importance, features, purpose."""

from __future__ import annotations

from dataclasses import asdict, replace

import pandas as pd

from modelmill.declare.declarations import Model
from services.trainer.evaluation.evaluate import Question
from services.trainer.evaluation.evaluation import Evaluation
from services.trainer.evaluation.feature_statistics import feature_statistics
from services.trainer.evaluation.figures import figures
from services.trainer.evaluation.importance import Fitted, importance


def illustrated(
    evaluation: Evaluation, recipe: Model, question: Question, fitted: Fitted, trained_on: pd.DataFrame
) -> Evaluation:
    """`evaluation` with all that is drawn or told on the card.

    Args:
        fitted: what the evaluation was made of.
        trained_on: [m, inputs] the rows that the estimator was fitted on.
    """
    return replace(
        evaluation,
        figures=figures(question.labels, fitted.answers, question.truth),
        importance=importance(question.metrics[0], fitted, question.truth, question.seed),
        features=feature_statistics(trained_on),
        purpose=asdict(recipe.about) | {"limits": recipe.limits},
    )
