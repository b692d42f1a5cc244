"""Starts the operator: ``python -m rft_operator``. It runs as a pod of the cluster, or outside of the cluster
with a kubeconfig. Its settings are environment variables.
"""

import argparse
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

from prometheus_client import MetricsHandler

from rft_operator import health, threads
from rft_operator.cluster import Cluster, ClusterError, NoCluster, connect
from rft_operator.handlers import kopf_settings, registry, watched_paths
from rft_operator.health import Signs
from rft_operator.leadership import Leadership
from rft_operator.lease import Terms
from rft_operator.listening import CannotListen
from rft_operator.log_lines import LineFormatter, log_to_stderr, write_error
from rft_operator.objects.names import OPERATOR_NAME
from rft_operator.operator import REVIEW_THREADS, Operator
from rft_operator.recorder import EVENT_THREADS
from rft_operator.running import run
from rft_operator.settings import BadSettings, Settings, from_env

CRD_SECONDS = 2.0
"""Seconds between two checks whether the CRD is installed. The operator waits for the CRD at its start."""
_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the operator until it gets a stop signal. Return the exit code.

    The code is 0 after a stop signal and 1 after a failure. It is 2 if a setting or the kubeconfig is wrong,
    or if the port of the probes or of the metrics cannot be used.
    """
    options = _parser().parse_args(argv)
    log_to_stderr(logging.DEBUG if options.verbose else logging.INFO, LineFormatter())
    if not options.verbose:
        # kopf.objects logs a line for every watch event. aiohttp.access would log one for every HTTP request.
        for chatty in ("kopf.objects", "aiohttp.access"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        settings = from_env(os.environ)
    except BadSettings as error:
        write_error(error)
        return 2
    if options.namespace:
        settings = replace(settings, namespaces=tuple(options.namespace))
    signs = Signs(settings.stale_seconds)
    try:
        health.serve(signs, settings.health_port)
        threads.serve(MetricsHandler, settings.metrics_port, "metrics", "RFT_METRICS_PORT")
    except CannotListen as error:
        write_error(error)
        return 2
    connections = settings.workers + REVIEW_THREADS + EVENT_THREADS
    try:
        cluster = connect(options.kubeconfig, options.context, connections)
        leadership = _leadership(options, settings, signs)
    except NoCluster as error:
        write_error(error)
        return 2
    # This process is PID 1 of its container, so SIGTERM has no effect on it unless it has a handler. The
    # process may have to wait a long time for the CRD or the Lease, and must be able to end in this time.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _wait_for_crd(cluster)
    try:
        leadership.acquire()
    except ClusterError as error:
        write_error(error)
        return 1
    signs.ready = False
    cluster.fence = leadership.remaining
    leadership.keep()
    return _act(cluster, settings, signs, leadership)


def _leadership(options: argparse.Namespace, settings: Settings, signs: Signs) -> Leadership:
    terms = Terms(settings.lease_seconds)
    # A request ends after half of the deadline. So if one request hangs, a second one can still renew the
    # Lease in time.
    cluster = connect(options.kubeconfig, options.context, threads=1, seconds=terms.deadline / 2)
    # A restarted container has a new identity, so it waits until the Lease of its predecessor has expired.
    me = f"{socket.gethostname()}_{uuid4()}"

    def waiting() -> None:
        signs.ready = True

    return Leadership(
        cluster, settings.own_namespace, settings.lease, me, terms, pod=settings.pod, waiting=waiting
    )


def _act(cluster: Cluster, settings: Settings, signs: Signs, leadership: Leadership) -> int:
    """Run kopf until this process gets a stop signal. Return the exit code: 1 if kopf fails, else 0.

    This process must hold the Lease. If the API server has not answered all requests at the end, this
    function does not return: it ends the process with the exit code, and does not release the Lease.
    """
    # kopf reads the name of the user who runs the process, but the user of a container has no name.
    os.environ.setdefault("LOGNAME", OPERATOR_NAME)
    signs.expect(watched_paths(settings.namespaces))
    operator = Operator(cluster, settings, signs)
    _collect_seldom()
    code = 0
    try:
        run(
            operator,
            registry(operator, cluster, signs),
            kopf_settings(settings.watch_seconds),
            settings.namespaces,
        )
    except Exception:
        _log.critical("kopf or one of its tasks failed, so this process ends with exit code 1", exc_info=True)
        code = 1
    if operator.is_idle:
        leadership.release()
        return code
    # A write may still reach the API server, so the next operator has to wait until the Lease expires. A
    # normal exit of Python would wait for the thread that sends this write.
    _log.warning("the API server has not answered all requests, so the Lease is not released")
    logging.shutdown()
    os._exit(code)


def _collect_seldom() -> None:
    """Run Python's full garbage collections ten times less often.

    All objects that exist at the call, such as imported modules, are excluded from garbage collection.

    A full collection stops the whole process, and the ingest answers no reports during this time. With 1,000
    jobs a full collection took 0.1 to 0.3 s and ran every six seconds. It freed only a few hundred objects.
    """
    gc.collect()
    gc.freeze()
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, 10 * old)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rft_operator", description=__doc__)
    parser.add_argument("--kubeconfig", help="run outside the cluster with this kubeconfig")
    parser.add_argument("--context", help="context of the kubeconfig; if absent, its current context")
    parser.add_argument(
        "--namespace", action="append", help="watch only this namespace; repeat the option for further ones"
    )
    parser.add_argument("--verbose", action="store_true", help="log every call")
    return parser


def _wait_for_crd(cluster: Cluster) -> None:
    """Wait until the API server knows the resource RFTJob, which means that the CRD is installed."""
    said = ""
    while True:
        try:
            if cluster.serves_jobs():
                return
            why = "the cluster has no CRD of RFTJobs; install it: kubectl apply -f crds/"
        except ClusterError as error:
            why = str(error)
        if why != said:
            _log.warning("this process waits for the CRD of RFTJobs: %s", why)
        said = why
        time.sleep(CRD_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
