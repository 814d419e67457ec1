"""Will a customer order again within a month? By what is known of the customer's orders until now."""

from modelmill import Entity, Model, Source, after, at_least, at_random, column, feature

customer = Entity("customer", key="customer_id")
customers = Source(
    "customers",
    entity=customer,
    columns={
        "orders": column(int, min=1),
        "spent": column(float, min=0),
        "days_since_order": column(int, min=0),
        "ordered_again": int | None,  # not known yet of new customers
    },
)


@feature(customer, dtype=float, description="What an order was worth in the mean.")
def spent_per_order(row):
    return row["spent"] / row["orders"]


def classifier():  # imported where it is needed: by the trainer alone
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression())


Model(
    "orders_again",
    entities=[customer],
    features=["orders", "days_since_order", "spent_per_order"],
    label="ordered_again",
    estimator=classifier,
    metric="roc_auc",
    split=at_random(0.25),
    gates=[at_least("roc_auc", 0.7)],
    train=after(rows=1000),
    description="Whether a customer orders again within a month.",
    limits="Made-up data: it shows how things are done, and says nothing about real customers.",
)
