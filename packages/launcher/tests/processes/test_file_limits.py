"""The limit on open files, and the connections that it allows."""

import resource

import pytest

from gemma_gateway.http_server import file_descriptors
from gemma_launcher.processes.file_limits import FileLimits
from gemma_launcher.settings import load_settings
from gemma_launcher.tools import doctor


@pytest.mark.parametrize("limit", [64, 256, 1024, 4096, 20_000, 2**20])
@pytest.mark.parametrize("wanted", [0, 100, 2000, 50_000])
def test_the_number_of_connections_matches_the_gateways(limit: int, wanted: int) -> None:
    """The two packages know nothing of each other."""
    assert FileLimits(limit, wanted).connections == file_descriptors.connection_limit(wanted, limit)


def test_the_warnings() -> None:
    assert FileLimits(None, 0).warning == FileLimits(4096, 0).warning == FileLimits(1024, 800).warning == ""
    assert "256 open files allows only 128 client connections" in FileLimits(256, 0).warning
    warning = FileLimits(1024, 2000).warning
    assert "API_MAX_CONNECTIONS=2000 needs a limit of 2128 open files; the limit is 1024" in warning
    assert "which allows 896 connections" in warning


def test_doctor_reports_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    assert doctor._open_files(load_settings({})).status == "ok"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 512))
    finding = doctor._open_files(load_settings({}))
    assert (finding.status, "512 open files allows only 384 client connections" in finding.text) == (
        "warn",
        True,
    )
