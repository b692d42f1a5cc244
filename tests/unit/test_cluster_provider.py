"""Which test cluster is used: the running one, the selected one, or the first that works on the machine."""

import json
from pathlib import Path

import pytest

from tests.cluster.build import BINARIES
from tests.cluster.existing import ExistingCluster
from tests.cluster.kind import KindCluster, cluster_configuration
from tests.cluster.layout import Layout
from tests.cluster.node_cluster import NodeCluster
from tests.cluster.provider import IP_FAMILY, NODE_IMAGE, WANTED, choose_provider
from tests.cluster.shell import ClusterError


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Return the folders of a machine on which no test cluster can be found or created.

    Each test adds what one kind of cluster needs, such as the programs ``kind`` and ``docker``.
    """
    for name in ("RFT_TEST_KUBECONFIG", "KUBEBUILDER_ASSETS", WANTED, NODE_IMAGE, IP_FAMILY):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return Layout(tmp_path, tmp_path / ".cluster", tmp_path / "cache")


def program(layout: Layout, name: str, status: int = 0) -> None:
    path = layout.repository / "bin" / name
    path.write_text(f"#!/bin/sh\nexit {status}\n")
    path.chmod(0o755)


def assets(layout: Layout, monkeypatch: pytest.MonkeyPatch, *names: str) -> Path:
    for name in names:
        program(layout, name)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(layout.repository / "bin"))
    return layout.repository / "bin"


def test_a_given_kubeconfig_takes_precedence(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    program(layout, "kind")
    program(layout, "docker")
    monkeypatch.setenv("RFT_TEST_KUBECONFIG", "/there")
    assert isinstance(choose_provider(layout), ExistingCluster)


def test_kind_is_used_if_a_docker_engine_answers(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program(layout, "kind")
    program(layout, "docker", status=1)
    assert isinstance(choose_provider(layout), NodeCluster)
    assert "not using kind: no Docker engine answers" in capfd.readouterr().err
    program(layout, "docker")
    monkeypatch.setenv(NODE_IMAGE, "kindest/node:here")
    found = choose_provider(layout)
    assert isinstance(found, KindCluster)
    assert found.image == "kindest/node:here"


def test_kind_gets_the_chosen_ip_family_and_keeps_it_while_it_runs(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(layout, "kind")
    program(layout, "docker")
    monkeypatch.setenv(IP_FAMILY, "ipv6")
    found = choose_provider(layout)
    assert isinstance(found, KindCluster)
    assert cluster_configuration(layout, 2, found.ip_family)["networking"] == {"ipFamily": "ipv6"}
    found._write_choice()
    monkeypatch.delenv(IP_FAMILY)
    running = choose_provider(layout)
    assert isinstance(running, KindCluster)
    assert running.ip_family == "ipv6"
    layout.choice.unlink()
    monkeypatch.setenv(IP_FAMILY, "IPv6")
    with pytest.raises(ClusterError, match="RFT_KIND_IP_FAMILY=IPv6 is not one of ipv4, ipv6, dual"):
        choose_provider(layout)


def test_ready_binaries_are_used_if_there_is_no_docker_engine(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = assets(layout, monkeypatch, *BINARIES[:-1])
    assert BINARIES[-1] in _err(layout, capfd)
    program(layout, BINARIES[-1])
    found = choose_provider(layout)
    assert isinstance(found, NodeCluster)
    assert found.binaries == folder


def _err(layout: Layout, capfd: pytest.CaptureFixture[str]) -> str:
    found = choose_provider(layout)
    assert isinstance(found, NodeCluster)
    assert found.binaries is None
    return capfd.readouterr().err


def test_a_selected_provider_is_used_or_refused_with_the_reason(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets(layout, monkeypatch, *BINARIES, "kind", "docker")
    for wanted, binaries in (("node", layout.repository / "bin"), ("old", None)):
        monkeypatch.setenv(WANTED, wanted)
        found = choose_provider(layout)
        assert isinstance(found, NodeCluster)
        assert found.binaries == binaries
    program(layout, "docker", status=1)
    monkeypatch.setenv(WANTED, "kind")
    with pytest.raises(ClusterError, match="RFT_TEST_CLUSTER=kind, but no Docker engine answers"):
        choose_provider(layout)
    monkeypatch.delenv("KUBEBUILDER_ASSETS")
    monkeypatch.setenv(WANTED, "node")
    with pytest.raises(ClusterError, match="KUBEBUILDER_ASSETS is not set"):
        choose_provider(layout)
    monkeypatch.setenv(WANTED, "new")
    with pytest.raises(ClusterError, match="RFT_TEST_CLUSTER=new is not one of kind, node, old"):
        choose_provider(layout)


@pytest.mark.parametrize(
    ("choice", "kind"),
    [
        ({"provider": "kind", "program": "/opt/kind", "image": "here"}, KindCluster),
        ({"provider": "node", "binaries": "/opt/kubernetes"}, NodeCluster),
        ({"provider": "node"}, NodeCluster),
    ],
)
def test_a_started_cluster_is_found_with_other_environment_variables(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, choice: dict[str, str], kind: type
) -> None:
    layout.state.mkdir()
    layout.choice.write_text(json.dumps(choice))
    monkeypatch.setenv(WANTED, "old")
    found = choose_provider(layout)
    assert type(found) is kind
    if isinstance(found, KindCluster):
        assert (str(found.program), found.image) == ("/opt/kind", "here")


def test_all_nodes_of_kind_mount_the_volumes_and_one_writes_the_audit_log(layout: Layout) -> None:
    nodes = cluster_configuration(layout, workers=2)["nodes"]
    assert [node["role"] for node in nodes] == ["control-plane", "worker", "worker"]
    for node in nodes:
        assert str(layout.volumes) in [mount["hostPath"] for mount in node["extraMounts"]]
    (patch,) = nodes[0]["kubeadmConfigPatches"]
    arguments = {a["name"]: a["value"] for a in json.loads(patch)["apiServer"]["extraArgs"]}
    logs = next(m for m in nodes[0]["extraMounts"] if m["hostPath"] == str(layout.logs))
    assert arguments["audit-log-path"].startswith(logs["containerPath"])
