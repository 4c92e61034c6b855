"""What is registered is the same in memory and in a database: every test with a `ledger` runs on both."""

import pytest


@pytest.fixture(params=["memory", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)
