"""Reads the settings of the operator from environment variables, once at the start."""

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast, get_args
from urllib.parse import urlsplit

from rft_api.defaults import NO_DEFAULTS, JobDefaults, read_defaults
from rft_api.problems import InvalidManifest
from rft_operator.listening import EVERYWHERE
from rft_operator.objects.platform import AssignsUsers
from rft_planner.accelerators import ACCELERATORS
from rft_planner.kind_labels import Table

MIN_LEASE_SECONDS = 3
MAX_LEASE_SECONDS = 100
MAX_WORKERS = 1000
MAX_NUMBER = 1_000_000_000


class BadSettings(ValueError):
    """An environment variable cannot be used. The message names the variable, or the value of the chart from
    which it is made.
    """


@dataclass(frozen=True)
class Settings:
    """The settings of the operator, set by the chart or a developer."""

    trainer_image: str
    image_pull_policy: str = "IfNotPresent"
    namespaces: tuple[str, ...] = ()
    """Namespaces whose RFTJobs the operator handles. Empty: all namespaces."""
    own_namespace: str = "default"
    """The namespace where the operator keeps its TLS Secret and its Lease."""
    lease: str = "rft-operator"
    """Name of the Lease that one operator at a time holds."""
    pod: str | None = None
    """Name of this process's own pod, which gets a label while the process holds the Lease. ``None`` outside
    a cluster."""
    lease_seconds: int = 15
    """Seconds after which another operator may take a Lease that was not renewed."""
    ingest_url: str | None = None
    """Base URL of the ingest, as pods reach it. ``None`` means that there is no ingest. Then the operator
    reads reports only from the termination messages of pods."""
    ingest_bind: str = EVERYWHERE
    ingest_port: int = 8443
    tls_secret: str = "rft-operator-ingest-tls"
    tls_names: tuple[str, ...] = field(default=())
    """DNS names and IP addresses that the certificate of the ingest must have, besides the host of
    ``ingest_url``."""
    health_port: int = 8080
    metrics_port: int = 9090
    watch_seconds: int = 180
    """Seconds after which the API server ends a watch. kopf then connects again."""
    stale_seconds: int = 300
    """Seconds after which the liveness probe fails if a watch gets no answer."""
    workers: int = 8
    no_progress_seconds: float = 1800.0
    """Seconds without a report after which a run counts as stalled, before its first step and in
    evaluations."""
    read_nodes: bool = True
    """Whether the operator reads nodes, to choose the kind of GPU and to explain unschedulable pods."""
    accelerator_labels: Table = field(default_factory=dict)
    """Further sets of node labels for accelerators of the catalogue. A node with all labels of one of these
    sets has the accelerator of this set."""
    job_defaults: JobDefaults = NO_DEFAULTS
    """The platform's defaults for fields that jobs leave out."""
    assigns_users: AssignsUsers = "auto"
    """Whether the cluster assigns user and group IDs to pods and refuses others. With ``auto``, the answer is
    true if the cluster is OpenShift, else false."""
    read_kueue: bool = True
    """Whether the operator reads Kueue's Workloads, to explain why a job is queued."""
    read_logs: bool = True
    """Whether the operator reads the last log lines of a stalled trainer, and shows them in the status."""

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """Names and addresses that the serving certificate of the ingest must have. The host of
        ``ingest_url`` is the first.
        """
        host = urlsplit(self.ingest_url).hostname if self.ingest_url else None
        return tuple(dict.fromkeys([*([host] if host else []), *self.tls_names]))


def from_env(env: Mapping[str, str]) -> Settings:
    """Return the settings in the environment variables ``env``.

    Raises:
        BadSettings: if a variable is missing or malformed.
    """
    image = env.get("RFT_TRAINER_IMAGE")
    if not image:
        raise BadSettings("RFT_TRAINER_IMAGE is not set; set it to the container image of the trainer")
    url = env.get("RFT_INGEST_URL") or None
    if url is not None and not url.startswith("https://"):
        raise BadSettings(f"RFT_INGEST_URL {url} must start with https://, because pods send tokens to it")
    lease_seconds = number(env, "RFT_LEASE_SECONDS", Settings.lease_seconds)
    if not MIN_LEASE_SECONDS <= lease_seconds <= MAX_LEASE_SECONDS:
        raise BadSettings(
            f"RFT_LEASE_SECONDS {lease_seconds} must be from {MIN_LEASE_SECONDS} to {MAX_LEASE_SECONDS}: "
            "the leader needs time to renew the Lease, and after a crash the next leader waits this long"
        )
    watch_seconds = number(env, "RFT_WATCH_SECONDS", Settings.watch_seconds)
    stale_seconds = number(env, "RFT_STALE_SECONDS", Settings.stale_seconds)
    if not 0 < watch_seconds < stale_seconds - lease_seconds:
        raise BadSettings(
            f"RFT_WATCH_SECONDS is {watch_seconds}; it must be at least 1 and less than "
            f"{stale_seconds - lease_seconds}, which is RFT_STALE_SECONDS ({stale_seconds}) minus "
            f"RFT_LEASE_SECONDS ({lease_seconds}). A working watch may get no event for RFT_WATCH_SECONDS, "
            "and for longer while the API server does not answer. Such a watch must not count as failed"
        )
    return Settings(
        trainer_image=image,
        image_pull_policy=env.get("RFT_TRAINER_IMAGE_PULL_POLICY") or Settings.image_pull_policy,
        namespaces=words(env, "RFT_WATCH_NAMESPACES"),
        own_namespace=env.get("RFT_NAMESPACE") or Settings.own_namespace,
        pod=env.get("RFT_POD_NAME") or None,
        lease=env.get("RFT_LEASE") or Settings.lease,
        lease_seconds=lease_seconds,
        ingest_url=url.rstrip("/") if url else None,
        ingest_bind=address(env, "RFT_INGEST_BIND", Settings.ingest_bind),
        ingest_port=port(env, "RFT_INGEST_PORT", Settings.ingest_port),
        tls_secret=env.get("RFT_TLS_SECRET") or Settings.tls_secret,
        tls_names=words(env, "RFT_TLS_NAMES"),
        health_port=port(env, "RFT_HEALTH_PORT", Settings.health_port),
        metrics_port=port(env, "RFT_METRICS_PORT", Settings.metrics_port),
        watch_seconds=watch_seconds,
        stale_seconds=stale_seconds,
        workers=number(env, "RFT_WORKERS", Settings.workers, least=1, most=MAX_WORKERS),
        no_progress_seconds=float(number(env, "RFT_NO_PROGRESS_SECONDS", int(Settings.no_progress_seconds))),
        read_nodes=switch(env, "RFT_READ_NODES", Settings.read_nodes),
        accelerator_labels=table(env, "RFT_ACCELERATOR_LABELS"),
        job_defaults=job_defaults(env, "RFT_JOB_DEFAULTS"),
        assigns_users=assigns_users(env, "RFT_ASSIGNS_USERS"),
        read_kueue=switch(env, "RFT_READ_KUEUE", Settings.read_kueue),
        read_logs=switch(env, "RFT_READ_LOGS", Settings.read_logs),
    )


def words(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Return the values in a comma-separated environment variable."""
    return tuple(word.strip() for word in env.get(name, "").split(",") if word.strip())


def number(env: Mapping[str, str], name: str, default: int, least: int = 0, most: int = MAX_NUMBER) -> int:
    """Return the whole number in an environment variable, or ``default`` if the variable is not set. Raises
    BadSettings if its value is not a whole number from ``least`` to ``most``.
    """
    text = env.get(name)
    if not text:
        return default
    if not re.fullmatch("[0-9]{1,10}", text) or not least <= int(text) <= most:
        raise BadSettings(f"{name} {text} is not a whole number from {least} to {most}")
    return int(text)


def port(env: Mapping[str, str], name: str, default: int) -> int:
    """Return the port in an environment variable, or ``default`` if the variable is not set. Raises
    BadSettings if its value is not a port.
    """
    return number(env, name, default, least=1, most=65535)


def switch(env: Mapping[str, str], name: str, default: bool) -> bool:
    """Return the boolean in an environment variable, or ``default`` if the variable is not set. Raises
    BadSettings if its value is not ``true`` or ``false``.
    """
    text = env.get(name) or str(default).lower()
    if text not in ("true", "false"):
        raise BadSettings(f"{name} is {text}; it must be true or false")
    return text == "true"


def assigns_users(env: Mapping[str, str], name: str) -> AssignsUsers:
    """Return the value of an environment variable that says whether the cluster assigns user IDs to pods:
    ``auto``, ``true`` or ``false``. If the variable is not set, return ``auto``. Raises BadSettings if it has
    another value.
    """
    text = env.get(name) or Settings.assigns_users
    for allowed in get_args(AssignsUsers):
        if text == allowed:
            return cast(AssignsUsers, allowed)
    raise BadSettings(f"{name} is {text}; it must be auto, true or false")


def table(env: Mapping[str, str], name: str) -> Table:
    """Return the node labels of accelerators from an environment variable that contains JSON.

    The JSON maps each accelerator to a list of objects. Each object maps label keys to lists of values, as in
    ``{"nvidia-l4-24gb": [{"example.com/gpu": ["l4"]}]}``. Raises BadSettings if the JSON is malformed.
    """
    try:
        given = json.loads(env.get(name) or "{}")
        found = {
            accelerator: tuple({key: _texts(values) for key, values in one.items()} for one in sets)
            for accelerator, sets in given.items()
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise BadSettings(f"{name} is not a JSON object of accelerators and their node labels") from error
    for accelerator, sets in found.items():
        if accelerator not in ACCELERATORS:
            raise BadSettings(f"{name} {accelerator} is not in the catalogue: {', '.join(ACCELERATORS)}")
        if not all(sets):
            raise BadSettings(f"{name} {accelerator}: each entry needs a label with a list of values")
    return found


def job_defaults(env: Mapping[str, str], name: str) -> JobDefaults:
    """Return the platform's defaults from an environment variable that contains JSON.

    Raises:
        BadSettings: if the text is not JSON, or if a default is wrong. For a wrong default, the message has
            its path in the chart's values.
    """
    try:
        return read_defaults(json.loads(env.get(name) or "{}"), ACCELERATORS)
    except InvalidManifest as error:
        raise BadSettings(str(error)) from error
    except ValueError as error:
        raise BadSettings(f"{name} is not JSON: {error}") from error


def _texts(values: object) -> tuple[str, ...]:
    """Return a list of texts as a tuple. Raises TypeError if ``values`` is anything else."""
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{values!r} is not a list of texts")
    return tuple(values)


def address(env: Mapping[str, str], name: str, default: str) -> str:
    """Return the IP address in an environment variable, or ``default`` if the variable is not set. Raises
    BadSettings if its value is not an IP address.
    """
    text = env.get(name) or default
    try:
        ipaddress.ip_address(text)
    except ValueError as error:
        raise BadSettings(f"{name} {text} is not an IP address") from error
    return text
