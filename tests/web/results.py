"""A small result of a replay, as `tidemill.loop` makes it, and a status, for the tests of the pages."""

from datetime import date
from typing import Any

HOSTILE = """</title></svg><script>document.title="owned"</script><img src=x onerror=alert(1)>"'&{{ 7 * 7 }}"""


def result() -> dict[str, Any]:
    first = date(2013, 4, 1).toordinal()
    months = [
        {
            "month": name,
            "rows": 27_564,
            "requests": 28_330,
            "resolved": 0.9996,
            "share_positive": 0.279,
            "frozen": {"roc_auc": 0.713, "log_loss": 0.546, "calibration_error": 0.019},
            "loop": {"roc_auc": 0.758, "log_loss": 0.527, "calibration_error": 0.042},
        }
        for name in ("2013-04", "2013-05")
    ]
    return {
        "months": months,
        "mean": {who: months[0][who] for who in ("frozen", "loop")},
        "gain": {
            "roc_auc": {"estimate": 0.0453, "low": 0.0121, "high": 0.0603},
            "log_loss": {"estimate": 0.0191, "low": -0.0022, "high": 0.0301},
        },
        "events": [
            {"at": "2013-04-09T04:00:00Z", "kind": "drift found", "subject": "m/1", "why": "temp (PSI 0.24, 20× its usual)"},
            {"at": "2013-04-25T04:00:00Z", "kind": "promoted", "subject": "m/2", "why": "canary passed"},
        ],
        "cost": {"trainings": 10, "row_rounds": 268_694_850, "predictions": 255_987},
        "champion": "m/2",
        "daily": [{"day": first + at, "frozen": 0.5, "loop": 0.4 + at / 1000, "share_positive": 0.2} for at in range(61)],
        "calibration": {"frozen": [[0.2, 0.3, 100], [0.6, 0.8, 100]], "loop": [[0.2, 0.2, 100], [0.6, 0.6, 100]]},
        "maturity": {"days": 61, "mature": 60},
    }


def status() -> dict[str, Any]:
    made = result()
    return {
        "project": {"name": "flights", "objective": "Warn passengers", "owner": "ops@example.org"},
        "deployments": [
            {
                "name": "late",
                "url": "http://127.0.0.1:8317/v2/models/late/infer",
                "curl": """curl -s http://127.0.0.1:8317/v2/models/late/infer -d '{"flight_id": "UA-1545"}'""",
                "champion": {
                    "label": "m/2",
                    "digest": "392b17d5bc6344d4",
                    "until": "2013-04-09T04:00:00Z",
                    "since": "2013-04-25T04:00:00Z",
                },
                "previous": {"label": "m/1", "digest": "aa2b17d5bc6344d4", "until": "2013-04-01T04:00:00Z", "since": None},
                "candidate": {"label": "m/3", "digest": "bb2b17d5bc6344d4", "phase": "canary", "weight": 0.05},
                "fallback": ["the previous version", "the constant 0.22"],
                "branch": {"id": "7c616cbb", "kind": "replay", "status": "finished", "now": "2014-01-01T05:00:00Z"},
                "report": "/report/late",
                "watched": {"at": "2013-05-09T04:00:00Z", "kind": "watched", "why": "2013-05-02 to 2013-05-09: log_loss 0.512 (0.498)"},
                "versions": [
                    {"label": "m/1", "digest": "aa", "at": "2013-04-01T04:00:00Z", "role": "previous", "passed": True, "reason": "better"},
                    {"label": "m/2", "digest": "39", "at": "2013-04-09T04:00:00Z", "role": "champion", "passed": None, "reason": None},
                    {
                        "label": "m/3",
                        "digest": "bb",
                        "at": "2013-05-09T04:00:00Z",
                        "role": "candidate",
                        "passed": False,
                        "reason": "a slice is worse",
                    },
                ],
                "compared": {"why": "answers from 2013-05-02 to 2013-05-09, 600 of 900 compared: 1 of 20 features differ"},
                "held": "wind differs in 12 of 600 answers",
                "alerts": [event for event in made["events"] if event["kind"] == "drift found"],
                "retrainings": [{"at": f"2013-0{at}-09T04:00:00Z", "subject": f"m/{at}", "why": f"reason {at}"} for at in (4, 5)],
                "lineage": {
                    "ref": "version:m/2",
                    "role": "model version",
                    "detail": "since April",
                    "parents": [
                        {"ref": "run:7", "role": "training run", "detail": "", "parents": [{"ref": "dataset:arrivals", "role": "dataset"}]}
                    ],
                },
                "months": made["months"],
                "mean": made["mean"],
                "gain": made["gain"],
                "cost": made["cost"],
            }
        ],
        "served": {"requests": 1523, "by_rung": {"champion": 1500, "constant": 23}},
    }
