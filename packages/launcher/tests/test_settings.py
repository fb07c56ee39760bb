import pytest

from gemma_launcher.errors import CommandError
from gemma_launcher.settings import LauncherSettings, load_settings


def test_defaults() -> None:
    settings = load_settings({})
    assert (settings.api_host, settings.api_port) == ("127.0.0.1", 8080)
    assert settings.embedded


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_PORT", "9000")
    monkeypatch.setenv("GEMMA_TRITON_HTTP_PORT", "9001")
    monkeypatch.setenv("MODEL_NAME", "")  # as in `MODEL_NAME= make serve`
    settings = load_settings({"api_port": 9002})
    assert (settings.api_port, settings.gemma_triton_http_port, settings.model_name) == (9002, 9001, "")


def test_a_remote_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_GRPC_URL", "triton:8001")
    assert not load_settings({}).embedded


@pytest.mark.parametrize(
    ("name", "value"), [("API_PORT", "80800"), ("API_PORT", "http"), ("TRITON_LOG_LEVEL", "3")]
)
def test_an_invalid_value_is_reported(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(CommandError, match=f"{name}={value} is not valid: "):
        load_settings({})


def test_the_token_is_not_printed() -> None:
    assert "secret" not in repr(load_settings({"hf_token": "secret"}))


def test_every_setting_is_described() -> None:
    assert all(field.description for field in LauncherSettings.model_fields.values())
