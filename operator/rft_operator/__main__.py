"""``python -m rft_operator``: in a cluster with settings from the environment, or from a kubeconfig."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

import kopf
from prometheus_client import start_http_server

from rft_operator.cluster import Cluster, ClusterError, NotFound, connect
from rft_operator.handlers import kopf_settings, registry
from rft_operator.objects.names import OPERATOR_NAME
from rft_operator.operator import REVIEW_THREADS, Operator
from rft_operator.settings import BadSettings, Settings, from_env

_log = logging.getLogger("rft_operator")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the operator until it is told to stop; return the exit code."""
    options = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    if not options.verbose:
        # A line for every watch event and every probe says nothing.
        for chatty in ("kopf.objects", "aiohttp.access"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        settings = from_env(os.environ)
    except BadSettings as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.namespace:
        settings = replace(settings, namespaces=tuple(options.namespace))
    cluster = connect(options.kubeconfig, options.context, settings.workers + REVIEW_THREADS)
    try:
        _check_crd(cluster, settings)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    start_http_server(settings.metrics_port)
    # kopf wants to know its user's name, and a container's user has none.
    os.environ.setdefault("LOGNAME", OPERATOR_NAME)
    kopf.run(
        registry=registry(Operator(cluster, settings), cluster),
        settings=kopf_settings(),
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
        liveness_endpoint=f"http://0.0.0.0:{settings.health_port}/healthz",
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rft_operator", description=__doc__)
    parser.add_argument("--kubeconfig", help="run outside the cluster with this kubeconfig")
    parser.add_argument("--context", help="context of the kubeconfig; its current one if absent")
    parser.add_argument(
        "--namespace", action="append", help="serve this namespace only; may be given more than once"
    )
    parser.add_argument("--verbose", action="store_true", help="log every call")
    return parser


def _check_crd(cluster: Cluster, settings: Settings) -> None:
    """Say what is missing instead of watching nothing."""
    namespace = settings.namespaces[0] if settings.namespaces else None
    try:
        cluster.check_crd(namespace)
    except NotFound as error:
        raise NotFound(404, "the cluster does not know RFTJobs; install the CRD first") from error


if __name__ == "__main__":
    sys.exit(main())
