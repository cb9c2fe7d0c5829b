"""The Kubernetes manifests: valid by the published schemas, and true to what the exporter needs."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from dashboards.build import CONFIG_MAPS, render_config_maps
from exporter import config
from tests.dashboards_support import DASHBOARDS
from tests.e2e.stack import ROOT

FOLDER: Final = ROOT / "deploy/kubernetes"
VERSION: Final = "1.32"

TAP: Final = "deployment.yaml"
CAPTURE: Final = "capture/deployment.yaml"

both = pytest.mark.parametrize("deployment", [TAP, CAPTURE])

SERVICE_DRAIN: Final = 55
"""Seconds that the example's service takes to drain, as its comment says."""

Document = dict[str, Any]


def documents(name: str) -> list[Document]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def only(name: str) -> Document:
    (document,) = documents(name)
    return document


def pod(deployment: str = TAP) -> Document:
    spec: Document = only(deployment)["spec"]["template"]["spec"]
    return spec


def sidecar(deployment: str = TAP) -> Document:
    (container,) = pod(deployment)["initContainers"]
    found: Document = container
    return found


def port_of(name: str, deployment: str = TAP) -> int:
    (port,) = (each["containerPort"] for each in sidecar(deployment)["ports"] if each["name"] == name)
    number: int = port
    return number


def loaded(tmp_path: Path, deployment: str = TAP) -> config.Config:
    """The exporter's configuration, as its arguments and the ConfigMap give it."""
    (tmp_path / "exporter.yaml").write_text(only("exporter-config.yaml")["data"]["exporter.yaml"])
    mount = sidecar(deployment)["volumeMounts"][0]["mountPath"]
    given = [argument.removeprefix("--").partition("=") for argument in sidecar(deployment)["args"]]
    values = [
        (name, text.replace(mount, str(tmp_path)).replace("$(POD_IP)", "10.1.2.3") or "true") for name, _, text in given
    ]
    flags = {name: text for name, text in values if name not in ("tap", "capture")}
    taps, captures = ([text for name, text in values if name == kind] for kind in ("tap", "capture"))
    return config.load(flags, taps, captures=captures)


@pytest.mark.parametrize(
    "name", [TAP, CAPTURE, "service.yaml", "capture/service.yaml", "exporter-config.yaml", "dashboards.yaml"]
)
def test_kubernetes_would_take_it(name: str) -> None:
    """Every object is valid by the API's own schema, without a field that it does not know."""
    for document in documents(name):
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_a_misspelt_field_would_be_noticed() -> None:
    """The schemas are strict, within containers too."""
    document = only("deployment.yaml")
    document["spec"]["template"]["spec"]["initContainers"][0]["restartpolicy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="restartpolicy"):
        kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kustomize_builds_it() -> None:
    """Every file of the folder is named, and each object comes out once."""
    build = ["kubectl", "kustomize", FOLDER]
    done = subprocess.run(build, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    built = [(each["kind"], each["metadata"]["name"]) for each in yaml.safe_load_all(done.stdout)]
    named = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in FOLDER.glob("*.yaml")} == {*named, "kustomization.yaml"}
    assert sorted(built) == sorted(
        (each["kind"], each["metadata"]["name"]) for name in named for each in documents(name)
    )


@both
def test_the_exporter_is_a_native_sidecar(deployment: str) -> None:
    """It starts before the service and outlives it; its probes ask the exporter, not the service."""
    assert sidecar(deployment)["restartPolicy"] == "Always"
    for probe in ("startupProbe", "livenessProbe"):
        assert sidecar(deployment)[probe]["httpGet"] == {"path": "/-/healthy", "port": "metrics"}


def test_the_tap_dials_the_pods_own_address(tmp_path: Path) -> None:
    """And not loopback, of which the exporter would warn; what clients reach is its port, not the service's."""
    found = loaded(tmp_path)
    assert config.warnings(found) == ()
    (tap,) = found.tap
    (service,) = pod()["containers"]
    assert str(tap.upstream) == f"10.1.2.3:{service['ports'][0]['containerPort']}"
    assert tap.target in found.targets
    assert tap.listen.port == port_of("websocket")
    assert found.web_listen_address.port == port_of("metrics")
    assert sidecar()["env"] == [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    assert [port["targetPort"] for port in only("service.yaml")["spec"]["ports"]] == [8080]


def test_the_capture_is_of_the_services_own_port(tmp_path: Path) -> None:
    """Where clients get by the Service, too; and a pod that may not capture runs all the same."""
    found = loaded(tmp_path, CAPTURE)
    assert config.warnings(found) == ()
    assert found.tap == ()
    (capture,) = found.capture
    (service,) = pod(CAPTURE)["containers"]
    (port,) = service["ports"]
    assert (capture.interface, capture.port) == ("eth0", port["containerPort"])
    assert capture.target in found.targets
    assert found.capture_optional
    assert found.web_listen_address.port == port_of("metrics", CAPTURE)
    (reached,) = only("capture/service.yaml")["spec"]["ports"]
    assert reached["targetPort"] == service["readinessProbe"]["httpGet"]["port"] == port["name"]


def test_the_two_deployments_are_of_one_service() -> None:
    """What is around them, the ConfigMap, the PodMonitor and the volume, fits both; only how it is seen differs."""
    tapped, captured = only(TAP), only(CAPTURE)
    for deployment in (tapped, captured):
        spec = deployment["spec"]["template"]["spec"]
        del spec["initContainers"], spec["containers"]
    assert tapped == captured
    assert only("service.yaml")["metadata"] == only("capture/service.yaml")["metadata"]
    for field in ("volumeMounts", "startupProbe", "livenessProbe", "image"):
        assert sidecar(TAP)[field] == sidecar(CAPTURE)[field]


def test_readiness_is_asked_over_http_through_the_tap() -> None:
    """A TCP check would find the tap, whatever became of the service."""
    (service,) = pod()["containers"]
    assert service["readinessProbe"]["httpGet"]["port"] == port_of("websocket")


@both
def test_the_pod_is_given_the_time_of_both(deployment: str, tmp_path: Path) -> None:
    """The service's drain and the exporter's grace fit into the pod's, and the grace holds two scrapes."""
    grace = loaded(tmp_path, deployment).shutdown_grace
    assert SERVICE_DRAIN + grace <= pod(deployment)["terminationGracePeriodSeconds"]
    assert f"up to {SERVICE_DRAIN} s" in (FOLDER / deployment).read_text()
    (endpoint,) = only("podmonitor.yaml")["spec"]["podMetricsEndpoints"]
    assert grace > 2 * int(endpoint["interval"].removesuffix("s"))


def test_the_exporter_needs_no_privilege() -> None:
    """Nothing to write, no capability, no root, and no way to get any."""
    context = sidecar()["securityContext"]
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert pod()["securityContext"]["runAsNonRoot"]
    user = re.search(r"(?m)^USER (\d+):", (ROOT / "Dockerfile").read_text())
    assert user is not None
    assert context["runAsUser"] == int(user[1])


def test_a_capture_needs_one_right() -> None:
    """Root with NET_RAW and nothing else, and in its own container alone."""
    context = sidecar(CAPTURE)["securityContext"]
    assert context == {
        "runAsNonRoot": False,
        "runAsUser": 0,
        "capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]},
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
    }
    assert pod(CAPTURE)["securityContext"]["runAsNonRoot"]
    (service,) = pod(CAPTURE)["containers"]
    assert service["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not {"hostNetwork", "hostPID", "shareProcessNamespace"} & set(pod(CAPTURE))


@both
def test_prometheus_finds_the_pods(deployment: str) -> None:
    """The PodMonitor selects the Deployment's pods, and names a port that they have."""
    monitor = only("podmonitor.yaml")
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "PodMonitor")
    labels = only(deployment)["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert only(deployment)["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert only("service.yaml")["spec"]["selector"].items() <= labels.items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert set(endpoint) == {"port", "interval"}
    assert port_of(endpoint["port"], deployment) == 11009


@both
def test_what_is_mounted_is_defined(deployment: str) -> None:
    """The volume is the ConfigMap of this folder, and the configuration file is one of its keys."""
    (volume,) = pod(deployment)["volumes"]
    assert volume["configMap"]["name"] == only("exporter-config.yaml")["metadata"]["name"]
    assert "exporter.yaml" in only("exporter-config.yaml")["data"]


def test_the_dashboards_are_those_of_grafana() -> None:
    """As rendered; a ConfigMap for each, with the label that Grafana's sidecar looks for, small enough for kubectl."""
    assert CONFIG_MAPS.read_text() == render_config_maps()
    found = {}
    for document in documents("dashboards.yaml"):
        assert document["metadata"]["labels"] == {"grafana_dashboard": "1"}
        assert len(json.dumps(document)) < 256 * 1024
        found |= {name: json.loads(text) for name, text in document["data"].items()}
    assert found == DASHBOARDS
