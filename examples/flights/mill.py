"""A year of flights out of New York: will a flight arrive more than 15 minutes late?

Carriers, origins and routes are described by how the day before yesterday went, origins also by the hour's weather.
"""

from modelmill import Entity, Model, Source

carrier = Entity("carrier", key="carrier")
origin = Entity("origin", key="origin")
route = Entity("route", key="route")

DAY = {"late_share": float | None, "mean_delay": float | None, "flights": int}  # None: a default, where it is not there

Source("carrier_days", entity=carrier, event_time="known", columns=DAY)
Source("origin_days", entity=origin, event_time="known", columns=DAY)
Source("route_days", entity=route, event_time="known", columns=DAY)
Source(
    "weather",
    entity=origin,
    event_time="observed",
    columns={
        "temp": float | None,
        "humid": float | None,
        "wind_speed": float | None,
        "precip": float | None,
        "pressure": float | None,
        "visib": float | None,
    },
)

flights = Source(
    "flights",
    entities=[carrier, origin, route],
    event_time="scheduled",
    columns={"hour": int, "weekday": int, "distance": float, "late": int | None},  # a cancelled flight never arrives
)

FEATURES = [
    "carrier.late_share",
    "carrier.mean_delay",
    "origin.late_share",
    "origin.mean_delay",
    "route.late_share",
    "route.mean_delay",
    "temp",
    "humid",
    "wind_speed",
    "precip",
    "pressure",
    "visib",
]


def classifier():
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=150, learning_rate=0.06, random_state=2013)


Model(
    "flight_late",
    entities=[carrier, origin, route],
    features=FEATURES,
    inputs={"hour": int, "weekday": int, "distance": float},
    label="late",
    source=flights,
    estimator=classifier,
    metric="roc_auc",
    promote="always",  # each month's model replaces the last one; the table shows whether that was right
    test_share=0.1,
    defaults=dict.fromkeys(FEATURES),
)
