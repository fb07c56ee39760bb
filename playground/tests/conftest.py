from collections.abc import Iterator

import pytest

from fake_openai import FakeOpenAI


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    """A server that says what it is told."""
    fake = FakeOpenAI()
    fake.start()
    yield fake
    fake.stop()
