"""The Kubernetes manifests: that their parts fit each other, the images and the settings. No cluster."""

import re
from typing import Any

import pytest
import yaml

import dockerfile
from dockerfile import Stage
from stack import ROOT
from test_compose import documented

FOLDER = ROOT / "deploy" / "kubernetes"
IMAGES = {"gemma-triton": "Dockerfile.triton", "gemma-triton-api": "Dockerfile.api"}


def objects() -> list[dict[str, Any]]:
    return [
        each
        for path in FOLDER.glob("*.yaml")
        for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each["spec"] for each in objects() if each["kind"] == kind}


@pytest.fixture(params=IMAGES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pod(name: str) -> dict[str, Any]:
    return dict(of_kind("Deployment")[name]["template"]["spec"])


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["containers"]
    return dict(container)


@pytest.fixture
def image(name: str) -> Stage:
    return dockerfile.parse(ROOT / IMAGES[name]).image


def test_it_is_plain_yaml_of_known_kinds() -> None:
    kinds = {(each["apiVersion"], each["kind"]) for each in objects()}
    assert kinds == {("v1", "PersistentVolumeClaim"), ("v1", "Service"), ("apps/v1", "Deployment")}
    assert not any(re.search(r"[&*]\w+|<<:", path.read_text()) for path in FOLDER.glob("*.yaml"))


def test_selectors_find_the_pods(name: str) -> None:
    deployment, service = of_kind("Deployment")[name], of_kind("Service")[name]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels == service["selector"]
    others = [spec["selector"] for other, spec in of_kind("Service").items() if other != name]
    assert labels not in others


def test_ports_are_named_and_exposed_by_the_image(name: str, container: dict[str, Any], image: Stage) -> None:
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert set(ports.values()) == {int(port) for port in image.all("EXPOSE")[0].split()}
    assert {port["targetPort"] for port in of_kind("Service")[name]["ports"]} <= set(ports)
    probes = (container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness"))
    assert {probe["httpGet"]["port"] for probe in probes if "httpGet" in probe} <= set(ports)


def test_images_are_the_ones_that_are_built_here(name: str, container: dict[str, Any], image: Stage) -> None:
    title = image.pairs("LABEL")["org.opencontainers.image.title"]
    version = next(argument.split("=")[1] for argument in image.all("ARG") if argument.startswith("VERSION="))
    assert container["image"] == f"{title}:{version}"
    assert title == name


def test_liveness_of_triton_asks_the_model_and_leaves_the_ending_to_kubernetes() -> None:
    image = dockerfile.parse(ROOT / "Dockerfile.triton").image
    (container,) = of_kind("Deployment")["gemma-triton"]["template"]["spec"]["containers"]
    command = container["livenessProbe"]["exec"]["command"]
    assert [*command, "--end", "1"] == image.health
    assert container["args"] == image.argv("CMD")


def test_variables_are_settings_and_addresses_are_services(container: dict[str, Any]) -> None:
    variables = {each["name"]: each.get("value", "") for each in container["env"]}
    assert set(variables) <= documented()
    services = {
        (service, port["port"]) for service, spec in of_kind("Service").items() for port in spec["ports"]
    }
    for name, value in variables.items():
        if name.startswith("TRITON_"):
            host, port = value.rsplit("/", 1)[1].split(":")
            assert (host, int(port)) in services


def test_nobody_is_root_and_nothing_is_allowed(
    pod: dict[str, Any], container: dict[str, Any], image: Stage
) -> None:
    user = pod["securityContext"]
    assert f"{user['runAsUser']}:{user['runAsGroup']}" == image.all("USER")[0]
    assert user["runAsNonRoot"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False


def test_the_gateway_has_a_read_only_root() -> None:
    (container,) = of_kind("Deployment")["gemma-triton-api"]["template"]["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_mounts_are_volumes(pod: dict[str, Any], container: dict[str, Any]) -> None:
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["volumes"]
        if len(volume) == 2 and "persistentVolumeClaim" in volume
    }
    assert claims <= set(of_kind("PersistentVolumeClaim"))


def test_triton_has_a_gpu_and_shared_memory() -> None:
    pod = of_kind("Deployment")["gemma-triton"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounts["/dev/shm"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
    assert mounts["/cache"] == "models"


def test_there_is_time_to_stop() -> None:
    pods = {name: spec["template"]["spec"] for name, spec in of_kind("Deployment").items()}
    (api,) = pods["gemma-triton-api"]["containers"]
    limit = next(int(each["value"]) for each in api["env"] if each["name"] == "API_SHUTDOWN_SECONDS")
    assert pods["gemma-triton-api"]["terminationGracePeriodSeconds"] >= limit + 5
    patience = next(
        int(word.split("=")[1])
        for word in dockerfile.parse(ROOT / "Dockerfile.triton").image.argv("ENTRYPOINT")
        if word.startswith("--exit-timeout-secs")
    )
    assert pods["gemma-triton"]["terminationGracePeriodSeconds"] >= patience + 5
