"""Each of these servers violates the contract in one way, and the tests detect it."""

from collections.abc import Iterator

import pytest

from mutants import MUTANTS, Mutant, Mutating, RecordedTransport, unchanged
from server import Api, Server


@pytest.fixture(scope="module")
def recorded() -> Iterator[RecordedTransport]:
    recorded = RecordedTransport()
    yield recorded
    recorded.close()


def _run(server: Server, recorded: RecordedTransport, mutant: Mutant, broken: bool) -> None:
    change = mutant.change if broken else unchanged
    with server.http(Mutating(recorded, change)) as http:
        mutant.detected_by(Api(http, server.model))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_the_mutant_is_detected(server: Server, recorded: RecordedTransport, mutant: Mutant) -> None:
    _run(server, recorded, mutant, broken=False)
    with pytest.raises(AssertionError):
        _run(server, recorded, mutant, broken=True)
