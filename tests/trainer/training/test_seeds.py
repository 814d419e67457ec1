"""What is drawn is drawn again."""

from __future__ import annotations

import random

import numpy as np
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier
from sklearn.pipeline import make_pipeline

from services.trainer.training.steps import seed_process, seeded


def test_each_random_state_that_was_left_open_is_seeded() -> None:
    made = seeded(make_pipeline(BaggingClassifier(RandomForestClassifier())), 7)
    assert made[-1].random_state == 7
    assert made[-1].estimator.random_state == 7


def test_a_random_state_of_the_recipe_stays() -> None:
    assert seeded(RandomForestClassifier(random_state=1), 7).random_state == 1


def test_the_generators_of_the_process_are_seeded() -> None:
    drawn = []
    for _ in range(2):
        seed_process(7)
        drawn.append((random.random(), np.random.random()))
    assert drawn[0] == drawn[1]
