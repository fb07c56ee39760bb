"""What any client of the API expects."""

import pytest

from scenarios import SCENARIOS, Scenario
from server import Api


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_scenario(api: Api, scenario: Scenario) -> None:
    scenario(api)
