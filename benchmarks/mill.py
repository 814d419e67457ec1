"""What the benchmarks declare: two models on ten numbers about a user, and a source that is only ever written."""

from modelmill import Entity, Model, Source

FEATURES = [f"feature_{number}" for number in range(1, 11)]

user = Entity("user", key="user_id")
Source("users", entity=user, columns={**dict.fromkeys(FEATURES, float), "target": int})

sensor = Entity("sensor", key="sensor_id")
Source("readings", entity=sensor, columns=dict.fromkeys(FEATURES, float))


def logistic():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression())


def forest():
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=100, random_state=0)


for recipe in (logistic, forest):
    Model(
        recipe.__name__,
        entities=[user],
        features=FEATURES,
        label="target",
        estimator=recipe,
        metric="accuracy",
        promote="always",
    )
