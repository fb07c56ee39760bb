"""docker-compose.yml: read as it is, against the Compose specification, and by Docker Compose itself."""

import re
from typing import Any

import pytest

import compose
import dockerfile
import schema
from gemma_gateway.settings import GatewaySettings
from gemma_launcher.settings import LauncherSettings
from stack import ROOT

TRITONS = {"gpu": "triton", "cpu": "triton-cpu", "jetson": "triton-jetson"}
OWN_PORTS = {"triton": {8000, 8001, 8002}, "api": {8080}, "playground": {7860}}


def documented() -> set[str]:
    """The variables in the table of docs/configuration.md."""
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))


@pytest.fixture(scope="module")
def docker_compose() -> list[str]:
    command = compose.command()
    if command is None:
        pytest.skip(
            "no Docker Compose 2 here, so nobody has resolved docker-compose.yml; .ci/run installs one"
        )
    return command


def test_it_fits_the_compose_specification() -> None:
    assert schema.complaints("vendor.compose-spec", compose.FILE) == ""


@pytest.mark.parametrize("profile", TRITONS)
def test_a_profile_starts_one_triton_the_gateway_and_the_playground(
    docker_compose: list[str], profile: str
) -> None:
    services = compose.resolved(docker_compose, profile)["services"]
    assert set(services) == {TRITONS[profile], "api", "playground"}
    assert services[TRITONS[profile]]["networks"]["default"]["aliases"] == ["triton"]
    assert services["api"]["depends_on"][TRITONS[profile]]["condition"] == "service_healthy"
    assert services["playground"]["depends_on"]["api"]["condition"] == "service_healthy"


def test_with_no_profile_named_it_is_the_gpu(docker_compose: list[str]) -> None:
    assert set(compose.resolved(docker_compose)["services"]) == {"triton", "api", "playground"}
    assert (ROOT / ".env").read_text().splitlines()[-1] == "COMPOSE_PROFILES=gpu"


def test_observability_comes_on_top(docker_compose: list[str]) -> None:
    services = compose.resolved(docker_compose, "gpu", "observability")["services"]
    assert set(services) == {"triton", "api", "playground", "prometheus", "grafana"}


def test_with_no_model_named_it_is_the_one_in_the_image() -> None:
    image = dockerfile.parse(ROOT / "Dockerfile.triton").image
    for name in TRITONS.values():
        assert compose.environment(name)["MODEL_NAME"] == image.pairs("ENV")["MODEL_NAME"]


def test_the_variables_of_the_seed_reach_their_container(docker_compose: list[str]) -> None:
    shell = {"HF_TOKEN": "t", "MODEL_NAME": "google/gemma-3n-E2B-it", "NVIDIA_VISIBLE_DEVICES": "1"}
    others = {"API_PORT": "9000", "TRITON_LOG_LEVEL": "2", "PLAYGROUND_PORT": "9001", "OPENAI_API_KEY": "sk"}
    services = compose.resolved(docker_compose, **shell, **others)["services"]
    assert shell.items() <= services["triton"]["environment"].items()
    assert "HF_TOKEN" not in services["api"]["environment"]
    assert services["triton"]["command"] == ["--log-verbose=2"]
    assert [port["published"] for port in services["api"]["ports"]] == ["9000"]
    assert [port["target"] for port in services["api"]["ports"]] == [8080]
    assert [port["published"] for port in services["playground"]["ports"]] == ["9001"]
    assert [port["target"] for port in services["playground"]["ports"]] == [7860]
    assert services["playground"]["environment"]["OPENAI_API_KEY"] == "sk"
    assert not {"HF_TOKEN", "API_KEYS"} & set(services["playground"]["environment"])


def test_every_variable_is_in_the_table_of_settings() -> None:
    ours = {name: service for name, service in compose.services().items() if "build" in service}
    set_by_it = {variable for service in ours.values() for variable in service.get("environment", {})}
    assert compose.variables() | set_by_it <= documented()


def test_every_setting_can_reach_its_container() -> None:
    """Those that compose sets itself come from the shell, all others from settings.env."""
    for name, service in compose.services().items():
        if name == "api" or name.startswith("triton"):
            assert service["env_file"] == [{"path": "settings.env", "required": False}]
    fixed = {variable for name in ("api", *TRITONS.values()) for variable in compose.environment(name)}
    by_shell = compose.variables()
    inside = {"API_HOST", "TRITON_GRPC_URL", "TRITON_HTTP_URL"}  # the containers' own addresses
    assert fixed - by_shell == inside


@pytest.mark.parametrize("name", sorted(compose.services()))
def test_a_triton_that_responds_again_is_used(name: str) -> None:
    service = compose.services()[name]
    assert service["restart"] == "unless-stopped"
    assert "healthcheck" in service or dockerfile.parse(ROOT / service["build"]["dockerfile"]).image.health


@pytest.mark.parametrize("name", sorted(compose.services()))
def test_images_are_pinned_or_built_here(name: str) -> None:
    service = compose.services()[name]
    assert "build" in service or re.search(r":v?\d+\.\d+\.\d+$", service["image"])


def test_ports() -> None:
    for name, service in compose.services().items():
        ports = {_target(port) for port in service["ports"]}
        kind = name.split("-")[0]
        if kind in OWN_PORTS:
            assert ports == OWN_PORTS[kind]
            exposed = dockerfile.parse(ROOT / service["build"]["dockerfile"]).image.all("EXPOSE")
            assert ports == {int(port) for port in exposed[0].split()}


def test_what_has_no_password_is_for_this_machine_alone() -> None:
    for name, service in compose.services().items():
        if name != "api":
            assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name


def _target(port: str) -> int:
    return int(port.rsplit(":", 1)[1])


@pytest.mark.parametrize("name", [*TRITONS.values(), "api", "playground"])
def test_nothing_can_be_written_but_in_memory_and_volumes(name: str) -> None:
    service = compose.services()[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == (["/tmp"] if name in ("api", "playground") else ["/tmp:exec"])


@pytest.mark.parametrize("name", [*TRITONS.values(), "api", "playground"])
def test_no_privileges(name: str) -> None:
    service = compose.services()[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "network_mode", "pid", "user"} & set(service)


def test_triton_has_memory_to_share_a_gpu_and_a_place_for_the_model() -> None:
    for profile, name in TRITONS.items():
        service = compose.services()[name]
        assert service["shm_size"] == "1gb"
        assert ("runtime" in service) == (profile != "cpu")
        assert service["volumes"] == ["models:/cache"]
    image = dockerfile.parse(ROOT / "Dockerfile.triton").image
    assert image.pairs("ENV")["HOME"] == "/cache"


def test_there_is_time_to_stop() -> None:
    """Docker kills after the grace period: later than the process would have ended by itself."""
    grace = {
        name: _seconds(service.get("stop_grace_period", "10s"))
        for name, service in compose.services().items()
    }
    assert grace["api"] >= GatewaySettings().shutdown_seconds + 5
    entrypoint = dockerfile.parse(ROOT / "Dockerfile.triton").image.argv("ENTRYPOINT")
    (patience,) = (word.split("=")[1] for word in entrypoint if word.startswith("--exit-timeout-secs"))
    assert all(grace[name] >= int(patience) + 5 for name in TRITONS.values())


def _seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_the_ports_are_those_of_serve() -> None:
    for name, address in (("api", ""), ("playground", "127.0.0.1:")):
        port: Any = LauncherSettings.model_fields[f"{name}_port"].default
        expected = f"{address}${{{name.upper()}_PORT:-{port}}}:{port}"
        assert compose.services()[name]["ports"] == [expected]
