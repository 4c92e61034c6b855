"""The files of a new project as text: values in, a dict from file name to text out. Nothing is read or written here.

What it writes is for a person to go on editing: plain declarations, SQL in files of its own, comments that say what may be changed.
"""

import json
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tidemill.project.settings import FILE

REQUESTS, LABELS = "requests.sql", "labels.sql"


@dataclass(frozen=True)
class Item:
    """A column of the project: its name, its SQL over the file, and what it is used as (number, category, since, or nothing)."""

    name: str
    sql: str
    use: str = ""

    @property
    def select(self) -> str:
        return self.sql if self.sql == self.name else f"{self.sql} AS {self.name}"


@dataclass(frozen=True)
class Sizes:
    """Figures of gates, rollout and monitoring that depend on how much data there is."""

    holdout: str
    bins: int
    max_ece: float
    min_rows: int
    min_labels: int
    min_new_labels: int
    every: str
    windows: Sequence[str]
    base_rate: float
    rounds: int
    leaves: int
    min_child: int


@dataclass(frozen=True)
class Scaffold:
    """All that the files of a project say. `row_order` is the order of a key made from row numbers; `replay` is (train_until, end).

    `converted` are columns of the file that the queries see as numbers."""

    name: str
    task: str
    module: str
    source: str
    table: str
    null_values: Sequence[str]
    timezone: str
    keys: Sequence[Item]
    asked: Item
    known: Item
    label: Item
    none_after: str
    entities: Sequence[Item]
    columns: Sequence[Item]
    left_out: Sequence[tuple[str, str]]
    slices: Sequence[str]
    hour: bool
    boosted: bool
    sizes: Sizes
    client_time: bool
    replay: tuple[str, str] | None
    no_replay: str = ""
    row_order: Sequence[str] = ()
    sticky_by: str = ""
    converted: Sequence[Item] = ()


class Names:
    """Gives each thing of a project a plain name of its own.

    >>> names = Names({"order"})
    >>> [names.give(text) for text in ("Größe (cm)", "order", "Order", "2nd", "客户")]
    ['grosse_cm', 'order_', 'order_2', 'c_2nd', '客户']
    """

    def __init__(self, reserved: Collection[str] = ()) -> None:
        self.reserved, self.taken = set(reserved), set[str]()

    def give(self, text: str) -> str:
        """A name like the text that nothing else has, in small letters, ASCII where that says anything."""
        name = slug(text)
        name = f"{name}_" if name in self.reserved else name
        found, number = name, 2
        while found in self.taken:
            found, number = f"{name.rstrip('_')}_{number}", number + 1
        self.taken.add(found)
        return found


def slug(text: str) -> str:
    """A text as a plain identifier.

    >>> slug(" Kunde/Größe "), slug("--")
    ('kunde_grosse', 'column')
    """
    plain = unicodedata.normalize("NFKD", text.casefold())
    ascii_only = re.sub(r"[^a-z0-9]+", "_", plain.encode("ascii", "ignore").decode()).strip("_")
    whole = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", text.casefold())).strip("_")
    name = ascii_only if ascii_only and len(ascii_only) * 2 >= len(whole) else whole
    return f"c_{name}" if name[:1].isdigit() else name or "column"


def files(plan: Scaffold) -> dict[str, str]:
    """The files of the project by name."""
    return {
        FILE: _settings(plan),
        f"{plan.module}.py": _declarations(plan),
        REQUESTS: _requests(plan),
        LABELS: _labels(plan),
        ".gitignore": ".tidemill/\n__pycache__/\n",
    }


def window_line(plan: Scaffold) -> tuple[int, str]:
    """The line of the declarations that states the first windows, and its text: the one to change first."""
    lines = _declarations(plan).splitlines()
    return next((number, line.strip()) for number, line in enumerate(lines, 1) if "windows=[" in line)


def text(value: str) -> str:
    """A text as Python and TOML write it: in double quotes, on one line."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _list(values: Sequence[str]) -> str:
    return "[" + ", ".join(text(value) for value in values) + "]"


# ── tidemill.toml ───────────────────────────────────────────────────────────────────────────────────────────────


def _settings(plan: Scaffold) -> str:
    if plan.replay:
        replay = "[replay]                      # `tidemill replay`: the loop over the past, with a simulated clock\n"
        replay += f"train_until = {plan.replay[0]}\nend = {plan.replay[1]}\n"
    else:
        replay = f"# [replay]                    # {plan.no_replay}\n# train_until = 2030-01-01\n# end = 2031-01-01\n"
    client = "true            # the data are of the past: a request states when it would have been asked"
    serve = f"[serve]\nport = 8642\nclient_time = {client if plan.client_time else 'false           # requests are of this moment'}\n"
    return f"""[project]
name = {text(plan.name)}
objective = {text(f"Predict {plan.label.name} when it is asked")}
owner = ""                    # who answers for it
timezone = {text(plan.timezone)}

{replay}
{serve}"""


# ── SQL ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _from(plan: Scaffold) -> str:
    rows = plan.table
    if plan.converted:
        numbers = ",\n    ".join(f"{item.sql} AS {item.name}" for item in plan.converted)
        rows = f"(SELECT * REPLACE (  -- numbers with commas in them\n    {numbers}\n) FROM {plan.table})"
    if not plan.row_order:
        return f"FROM {rows}"
    number = f"row_number() OVER (ORDER BY {', '.join(plan.row_order)})"
    why = "-- no column is a key: rows are numbered, oldest first; an older row that the file gains later moves the numbers after it"
    return f"{why}\nFROM (SELECT *, {number} AS {plan.keys[0].name} FROM {rows})"


def _select(items: Sequence[Item]) -> str:
    unique = list({item.name: item for item in items}.values())
    return ",\n".join(f"    {item.select}" for item in unique)


def _requests(plan: Scaffold) -> str:
    out = "".join(f"-- left out: {text(name)}: {why}\n" for name, why in plan.left_out)
    return f"""-- One row for each request, with what is known when it is asked ({plan.asked.name}): no label, and nothing of later.
-- A column that is added here can be used in {plan.module}.py.
{out}SELECT
{_select([*plan.keys, plan.asked, *plan.entities, *plan.columns])}
{_from(plan)}
WHERE {plan.asked.sql} IS NOT NULL
"""


def _labels(plan: Scaffold) -> str:
    later = plan.known.sql.startswith(f"{plan.asked.sql} + INTERVAL")  # then it is later in every row that has a time
    known = f"{plan.asked.sql} IS NOT NULL" if later else f"{plan.known.sql} > {plan.asked.sql}"
    return f"""-- One row for each label, with the time when it was known ({plan.known.name}). Nothing sees a label before then.
SELECT
{_select([*plan.keys, plan.known, *plan.entities, plan.label])}
{_from(plan)}
WHERE {plan.label.sql} IS NOT NULL AND {known}
"""


# ── Python ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _declarations(plan: Scaffold) -> str:
    parts = [_head(plan), _datasets(plan), _views(plan), _task(plan), _model(plan), _serving(plan)]
    return "\n".join(parts)


def _head(plan: Scaffold) -> str:
    doc = f'"""Will {plan.label.name} be true? Asked at {plan.asked.name}; the answer is known at {plan.known.name} (labels.sql).\n\n'
    doc += 'Edit this file, then `tidemill run`: only what an edit touches runs again, and it says why.\n"""\n\n'
    if plan.boosted:
        return doc + "from lightgbm import LGBMClassifier\n\nimport tidemill as tm"
    return doc + _LINEAR_IMPORTS.rstrip()


def _datasets(plan: Scaffold) -> str:
    nulls = f", null_values={_list(plan.null_values)}" if plan.null_values else ""
    keys = [item.name for item in plan.keys]
    key = text(keys[0]) if len(keys) == 1 else _list(keys)
    file = f'{{{text(plan.table)}: tm.Source({text(plan.source)}, format="csv"{nulls})}}  # the SQL names the file by this key'
    return f"""
file = {file}
requests = tm.Dataset("requests", file, query="{REQUESTS}", key={key}, event_time={text(plan.asked.name)})
labels = tm.Dataset("labels", file, query="{LABELS}", key={key}, event_time={text(plan.known.name)})
# More checks: checks=[tm.not_null("…"), tm.in_range("…", 0, 100), tm.fresh("2d")]
"""


def _views(plan: Scaffold) -> str:
    found = [
        "# Labels of the same group that were known by then. Windows and functions may be changed: tm.mean, sum, min, max, count, last."
    ]
    found += [_history(plan, entity) for entity in plan.entities]
    lines = [f"        {text(name)}: {expression}," for name, expression in _request_features(plan)]
    body = "\n".join(lines)
    found.append(f"""# What the request itself says: SQL over the columns of {REQUESTS}.
request = tm.RequestView(
    "request",
    requests,
    features={{
{body}
    }},
)""")
    return "\n".join(found) + "\n"


def _history(plan: Scaffold, entity: Item) -> str:
    return f"""by_{entity.name} = tm.Entity({text(entity.name)}, key={text(entity.name)})
{entity.name}_history = tm.FeatureView(
    {text(f"{entity.name}_history")},
    labels,
    entity=by_{entity.name},
    windows={_list(plan.sizes.windows)},
    features={{"share_true": tm.mean({text(plan.label.name)}), "labels": tm.count()}},
)"""


def _request_features(plan: Scaffold) -> list[tuple[str, str]]:
    asked = plan.asked.name
    local = asked if plan.timezone == "UTC" else f"timezone('{plan.timezone}', {asked})"
    found = []
    for item in plan.columns:
        if item.use == "since":
            found.append((f"days_since_{item.name}", text(f"date_diff('second', {item.name}, {asked}) / 86400.0")))
        else:
            found.append((item.name, f"tm.category({text(item.name)})" if item.use == "category" else text(item.name)))
    names = Names()
    found = [(names.give(name), expression) for name, expression in found]
    found.append((names.give("weekday"), text(f"dayofweek({local})")))
    return [*found, (names.give("hour"), text(f"hour({local})"))] if plan.hour else found


def _task(plan: Scaffold) -> str:
    views = ", ".join(["request", *(f"{entity.name}_history" for entity in plan.entities)])
    none = f", none_after={text(plan.none_after)}" if plan.none_after else ""
    why = "  # without a label by then: known to have none" if plan.none_after else ""
    return f"""task = tm.Task(
    {text(plan.task)},
    type="binary",
    request=requests,
    predict_at={text(plan.asked.name)},
    features=[{views}],
    label=tm.Label(labels, {text(plan.label.name)}{none}),{why}
)

"""


_LINEAR_IMPORTS = """from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import tidemill as tm
"""

_LINEAR = """@tm.model(task, seed=13, params={"C": 1.0})
def linear(train: tm.TrainingSet, params: tm.Params) -> Pipeline:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), train.categorical), remainder=numbers)
    return make_pipeline(columns, LogisticRegression(**params, max_iter=500)).fit(train.X, train.y)

"""


def _model(plan: Scaffold) -> str:
    if not plan.boosted:
        return _LINEAR
    sizes = plan.sizes
    params = f'"num_leaves": {sizes.leaves}, "learning_rate": 0.05, "n_estimators": {sizes.rounds}, "min_child_samples": {sizes.min_child}'
    return f"""@tm.model(task, seed=13, params={{{params}}})
def boosted(train: tm.TrainingSet, params: tm.Params) -> LGBMClassifier:
    model = LGBMClassifier(**params, random_state=train.seed, deterministic=True, force_row_wise=True, n_jobs=1, verbose=-1)
    return model.fit(train.X, train.y, categorical_feature=train.categorical)

"""


def _serving(plan: Scaffold) -> str:
    sizes = plan.sizes
    slices = (
        f'\n    tm.gates.no_worse_slice("roc_auc", by={_list(plan.slices)}, margin=0.05, min_rows={sizes.min_rows}),' if plan.slices else ""
    )
    sticky = f", sticky_by={text(plan.sticky_by)}" if plan.sticky_by else ""
    model = "boosted" if plan.boosted else "linear"
    return f"""gates = [
    # The newest labels are held out; with no champion yet, the model must surely beat the base rate.
    tm.gates.better_than_champion("log_loss", holdout={text(sizes.holdout)}, confidence=0.95),{slices}
    tm.gates.calibration(max_ece={sizes.max_ece:g}, bins={sizes.bins}),  # what chance alone gives on so many rows is allowed for
]
deployment = tm.Deployment(
    {text(plan.task)},
    {model},
    gates=gates,
    rollout=tm.Canary(steps=[0.05, 0.25, 1.0], min_labels={sizes.min_labels}, alpha=0.05{sticky}),
    fallback=[tm.PreviousVersion(), tm.Constant({sizes.base_rate:.3g})],  # the constant is the share that is true
    timeout="500ms",
)
monitor = tm.Monitor(
    deployment,
    every="{sizes.every}",
    quality=["roc_auc", "log_loss", "ece"],
    drift=tm.Drift(false_alarm_rate=0.05),
    skew=tm.Skew(),  # features as they are served, beside the same computed offline
)
policy = tm.RetrainPolicy(
    monitor,
    on=[tm.QualityDrop("log_loss", by=0.02), tm.DriftFound(), tm.Age("60d")],
    cooldown="7d",
    min_new_labels={sizes.min_new_labels},
    approvals=0,  # how many people must agree before a new version goes live
)
"""
