"""The article's example: two numbers about a user, a third derived from the first, and a yes-or-no target."""

from modelmill import Entity, Model, Source, at_least, at_random, every, feature

user = Entity("user", key="user_id")
users = Source("users", entity=user, columns={"feature_1": float, "feature_2": float, "target": int})


@feature(user, dtype=float)
def feature_3(row):
    return row["feature_1"] ** 2


def classifier():  # imported where it is needed: by the trainer alone
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression())


Model(
    "user_target",
    entities=[user],
    features=["feature_1", "feature_2", "feature_3"],
    label="target",
    estimator=classifier,
    metric="accuracy",
    split=at_random(0.25),
    gates=[at_least("accuracy", 0.7)],  # each minute's version goes live, so that there is something to watch
    train=every(seconds=60),
    description="Whether a user's target is 1, by two numbers about the user.",
    owner="examples",
    limits="Made-up data: it shows how things are done, and says nothing about real users.",
)
