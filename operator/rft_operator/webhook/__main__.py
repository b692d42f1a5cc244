"""Starts the webhook: ``python -m rft_operator.webhook``. It answers admission reviews, and its settings are
environment variables.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial

from rft_operator.cluster import NoCluster, connect
from rft_operator.listening import CannotListen
from rft_operator.log_lines import write_error
from rft_operator.settings import BadSettings
from rft_operator.webhook.certificates import Source, mounted, own
from rft_operator.webhook.logs import log_as_json
from rft_operator.webhook.server import run
from rft_operator.webhook.settings import WebhookSettings, from_env


def main(argv: Sequence[str] | None = None) -> int:
    """Run the webhook until it gets a stop signal. Return the exit code: 0, or 2 if a setting is wrong or a
    port cannot be used.
    """
    options = _parser().parse_args(argv)
    log_as_json(logging.DEBUG if options.verbose else logging.INFO)
    try:
        settings = from_env(os.environ)
    except BadSettings as error:
        write_error(error)
        return 2
    try:
        source = _source(settings, options.kubeconfig, options.context)
        asyncio.run(_serve(settings, source))
    except (NoCluster, CannotListen) as error:
        write_error(error)
        return 2
    return 0


def _source(settings: WebhookSettings, kubeconfig: str | None, context: str | None) -> Source:
    if settings.tls_folder is not None:
        return partial(mounted, settings.tls_folder)
    return partial(own, connect(kubeconfig, context, threads=1), settings)


async def _serve(settings: WebhookSettings, source: Source) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run(settings, source, stop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rft_operator.webhook", description=__doc__)
    parser.add_argument("--kubeconfig", help="run outside the cluster with this kubeconfig")
    parser.add_argument("--context", help="context of the kubeconfig; if absent, its current context")
    parser.add_argument("--verbose", action="store_true", help="log every call")
    return parser


if __name__ == "__main__":
    sys.exit(main())
