"""What the benchmarks declare: models on numbers about a user and on aggregates, and sources that no model uses."""

from modelmill import Aggregate, Entity, Model, Source

FEATURES = [f"feature_{number}" for number in range(1, 11)]

user = Entity("user", key="user_id")
Source("users", entity=user, columns={**dict.fromkeys(FEATURES, float), "target": int})

visits = Source("visits", entity=user, event_time="at", columns={"pages": float})
AGGREGATES = ["pages_mean_2h", "pages_max_2h", "pages_sum_2h", "visits_count_2h"]
for column, function in (("pages", "mean"), ("pages", "max"), ("pages", "sum"), (None, "count")):
    Aggregate(visits, column, function, window="2h", hop="5m")

sensor = Entity("sensor", key="sensor_id")
Source("readings", entity=sensor, columns=dict.fromkeys(FEATURES, float))

station = Entity("station", key="station_id")
Source("measurements", entity=station, event_time="at", columns=dict.fromkeys(FEATURES, float))


def logistic():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression())


def forest():
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=100, random_state=0)


def boosted():  # takes missing values
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=20, random_state=0)


for name, recipe, features in (
    ("logistic", logistic, FEATURES),
    ("forest", forest, FEATURES),
    ("four_columns", boosted, FEATURES[:4]),
    ("four_aggregates", boosted, AGGREGATES),
):
    Model(name, entities=[user], features=features, label="target", estimator=recipe, metric="accuracy", gates=[])
