"""Red when it should be: each of these servers breaks the contract in one way, and the suite notices."""

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
        mutant.noticed_by(Api(http, server.model))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_it_is_noticed(server: Server, recorded: RecordedTransport, mutant: Mutant) -> None:
    _run(server, recorded, mutant, broken=False)
    with pytest.raises(AssertionError):
        _run(server, recorded, mutant, broken=True)
