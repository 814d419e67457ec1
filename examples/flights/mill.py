"""A year of flights out of New York: will a flight arrive more than 15 minutes late?

Origins and carriers are described by how late their flights landed in the last two hours, day and week, routes by how
often their flights were late in a week, origins also by the hour's weather.
"""

from modelmill import Aggregate, Entity, Model, Source, at_least, by_time, size_below

carrier = Entity("carrier", key="carrier")
origin = Entity("origin", key="origin")
route = Entity("route", key="route")

WEATHER = ["temp", "humid", "wind_speed", "precip", "pressure", "visib"]
Source("weather", entity=origin, event_time="observed", columns=dict.fromkeys(WEATHER, float | None))

flights = Source(
    "flights",
    entities=[carrier, origin, route],
    event_time="scheduled",
    columns={"hour": int, "weekday": int, "distance": float, "late": int | None},  # a cancelled flight never arrives
)
# Two hours after it was to depart, three of four flights are still in the air: delays are rows of their own, at the
# time when they are known.
landings = Source("landings", entities=[carrier, origin], event_time="landed", columns={"arr_delay": float})

# A flight and whether it was late are one row, at the time when it was to depart. A day later it is known.
route_late = Aggregate(flights, "late", "mean", window="7d", by=route, available_after="1d")
delays = [
    Aggregate(landings, "arr_delay", "mean", window=window, by=entity)
    for entity in (origin, carrier)
    for window in ("2h", "1d", "7d")
]
DELAYS = [f"{aggregate.entity.name}.{aggregate.name}" for aggregate in (route_late, *delays)]


def classifier():
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=150, learning_rate=0.06, random_state=2013)


for name, features in {"flight_late": WEATHER + DELAYS, "flight_late_plain": WEATHER}.items():
    Model(
        name,
        entities=[carrier, origin, route],
        features=features,
        inputs={"hour": int, "weekday": int, "distance": float},
        label="late",
        source=flights,
        estimator=classifier,
        metric="roc_auc",
        # Each month's model replaces the last one if it is better than a coin; the table shows whether that was right.
        gates=[at_least("roc_auc", 0.5), size_below(mb=50)],
        segments=["origin"],
        split=by_time(0.1),
        defaults=dict.fromkeys(features),
        description="Will a flight out of New York arrive more than 15 minutes late?",
        owner="flights",
        tags=["example"],
        limits="Flights of 2013 out of EWR, JFK and LGA; a cancelled flight never arrives and is in no row.",
    )
