"""Addresses of the node, its pods and its Services, and the network link between host and node.

The node has its own network namespace, and a veth pair connects it with the host. The host sends packets for
pods and Services through this pair. Pods can reach the host at the link's address, but not the internet. The
iptables rules of kube-proxy and CNI exist only in the node.

The node rejects packets to deleted pods, and to Services that no rule of kube-proxy handles. Otherwise the
node would send these packets back to the host by its default route, and the host would send them to the node
again.
"""

import ipaddress
import json
from dataclasses import dataclass
from typing import Any

from tests.cluster.shell import ClusterError, run, succeeds, wait_until

NODE_LINK = "eth0"
CANDIDATES = 24


@dataclass(frozen=True)
class Network:
    """The address ranges of Services, pods and the link to the host, in CIDR notation."""

    services: str
    pods: str
    link: str

    @property
    def host_address(self) -> str:
        """The address at which the node and its pods reach the host."""
        return str(ipaddress.ip_network(self.link)[1])

    @property
    def node_address(self) -> str:
        return str(ipaddress.ip_network(self.link)[2])

    @property
    def first_service_address(self) -> str:
        """ClusterIP of the API server's Service ``kubernetes``."""
        return str(ipaddress.ip_network(self.services)[1])

    @property
    def ingest_ip(self) -> str:
        """A fixed ClusterIP for the operator's Service, because trainers in this cluster have no DNS.

        It is address number 20,000 of the range for Services. The API server could give this address to
        another Service, but this is unlikely: it chooses from 65,000 addresses, and the tests use a dozen.
        """
        return str(ipaddress.ip_network(self.services)[20000])


def choose_network() -> Network:
    """Return address ranges that overlap no route of the host.

    Several ranges are tried, one after another. The first range for Services is 10.96.0.0/16.

    Raises:
        ClusterError: all of these ranges overlap a route.
    """
    taken = _host_networks()
    for number in range(CANDIDATES):
        network = Network(
            services=f"10.{96 + number}.0.0/16",
            pods=f"10.{128 + number}.0.0/24",
            link=f"10.{128 + number}.255.0/30",
        )
        ranges = [ipaddress.IPv4Network(r) for r in (network.services, network.pods, network.link)]
        if not any(mine.overlaps(other) for mine in ranges for other in taken):
            return network
    raise ClusterError("the host's routes overlap every address range that the node could use")


def connect(network: Network, host_link: str, node_process: int) -> None:
    """Connect the host with the node's network namespace.

    Args:
        network: the addresses.
        host_link: name of the link's end on the host, at most 15 characters.
        node_process: PID of the node's first process, as seen by the host.
    """
    peer = ("peer", "name", NODE_LINK, "netns", str(node_process))
    prefix = ipaddress.ip_network(network.link).prefixlen
    run("ip", "link", "add", host_link, "type", "veth", *peer)
    run("ip", "address", "add", f"{network.host_address}/{prefix}", "dev", host_link)
    run("ip", "link", "set", host_link, "up")
    wait_until("carrier on the node's network link", 20, lambda: _has_carrier(host_link))
    for destination in (network.pods, network.services):
        run("ip", "route", "add", destination, "via", network.node_address)


def configure_node_side(network: Network) -> None:
    """Wait for the link, then set the link's address and the default route. Runs inside the node."""
    run("ip", "link", "set", "lo", "up")
    link = ("ip", "link", "show", NODE_LINK)
    wait_until("link to the host", 20, lambda: succeeds(*link))
    prefix = ipaddress.ip_network(network.link).prefixlen
    run("ip", "address", "add", f"{network.node_address}/{prefix}", "dev", NODE_LINK)
    run("ip", "link", "set", NODE_LINK, "up")
    run("ip", "route", "add", "default", "via", network.host_address)
    # The routes of existing pods are more specific and take precedence.
    run("ip", "route", "add", "unreachable", network.pods)
    # A rule, not a route: kube-proxy replaces a ClusterIP by a pod's address only after routing.
    for chain in ("OUTPUT", "FORWARD"):
        run("iptables", "--append", chain, "--destination", network.services, "--jump", "REJECT")


def disconnect(host_link: str) -> None:
    """Remove the host's end of the link. This also removes the routes through the link.

    Do nothing if the link does not exist: the kernel removes it when the node ends.
    """
    if succeeds("ip", "link", "show", host_link):
        run("ip", "link", "delete", host_link)


def _has_carrier(link: str) -> bool:
    return "LOWER_UP" in json.loads(run("ip", "-json", "link", "show", link))[0]["flags"]


def _host_networks() -> list[ipaddress.IPv4Network]:
    routes: list[dict[str, Any]] = json.loads(run("ip", "-json", "-4", "route", "show", "table", "all"))
    known = [str(route["dst"]) for route in routes if route["dst"] != "default"]
    return [ipaddress.IPv4Network(destination, strict=False) for destination in known]
