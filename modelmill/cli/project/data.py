"""Made-up customers, the same at every call: `python data.py customers.csv` writes them as a file."""

import sys

import numpy as np
import pandas as pd

ROWS = 2000
SEED = 7


def rows(count=ROWS, seed=SEED):
    """`count` customers; those who ordered lately, often and for much are likelier to order again."""
    random = np.random.default_rng(seed)
    orders = random.integers(1, 20, count)
    spent = np.round(orders * random.lognormal(3, 0.5, count), 2)
    days = random.integers(0, 365, count)
    score = 1.0 + 0.15 * orders - 0.02 * days + 0.03 * spent / orders
    again = (random.uniform(size=count) < 1 / (1 + np.exp(-score))).astype(int)
    keys = [f"c{number}" for number in range(1, count + 1)]
    columns = {"orders": orders, "spent": spent, "days_since_order": days, "ordered_again": again}
    return pd.DataFrame({"customer_id": keys, **columns})


if __name__ == "__main__":
    rows().to_csv(sys.argv[1], index=False)
