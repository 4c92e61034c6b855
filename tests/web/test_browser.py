"""The pages in a real browser: they render from a file, and nothing leaves the page."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tidemill.web.report import render_report
from tidemill.web.status import render_status
from web.pages import Page
from web.results import HOSTILE, result, status

QUIET = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found and os.environ.get("CI") == "true":
        pytest.fail("there is no chromium; `make test` installs it (scripts/apt-packages chromium)")
    return found or pytest.skip("there is no chromium on PATH: apt-get install chromium")


def opened(file: Path, folder: Path) -> tuple[Page, list[str]]:
    """The page as the browser holds it, and every address that the page made it ask for."""
    log = folder / "net.json"
    where = [f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}"]
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", *QUIET, *where, "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return Page(done.stdout), asked(json.loads(log.read_text()))


def asked(log: dict[str, Any]) -> list[str]:
    """Addresses of the requests in a log of Chromium that a page started: the browser's own go without an initiator."""
    parameters = [event.get("params", {}) for event in log["events"]]
    return [one["url"] for one in parameters if one.get("url") and one.get("initiator", "not an origin") != "not an origin"]


@pytest.mark.parametrize("text", ["calm", HOSTILE])
def test_the_report_renders_and_asks_for_nothing(tmp_path: Path, text: str) -> None:
    made = result()
    made["events"][0]["why"] = text
    file = tmp_path / "report.html"
    file.write_text(render_report(made, project={"name": "flights"}, policy="on drift", model="boosted", timezone="America/New_York"))
    page, addresses = opened(file, tmp_path)
    assert page.text.startswith("Replay of flights – Tidemill")  # no script changed the title
    assert "mean monthly ROC AUC 0.713 → 0.758" in page.text
    assert len([one for one in page.named("svg") if one.get("class") == "wide"]) == 4
    assert not page.named("script") + page.named("img")
    assert not addresses


def test_the_status_page_renders_and_asks_for_nothing(tmp_path: Path) -> None:
    file = tmp_path / "status.html"
    file.write_text(render_status(status()))
    page, addresses = opened(file, tmp_path)
    assert "Where the champion comes from" in page.text
    assert not addresses


def test_a_page_that_asks_for_something_is_found(tmp_path: Path) -> None:
    file = tmp_path / "leak.html"
    file.write_text('<!doctype html><title>x</title><body><img src="http://127.0.0.1:9/pixel.png" alt="x"></body>')
    _, addresses = opened(file, tmp_path)
    assert "http://127.0.0.1:9/pixel.png" in addresses
