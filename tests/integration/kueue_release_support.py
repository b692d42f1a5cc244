"""Installs Kueue from its own chart, changes its configuration, and removes it.

By default Kueue makes the certificate of its webhook, and waits until the kubelet has mounted it. The kubelet
mounts a changed Secret only after up to 90 seconds, and Kueue looks for the files at intervals that double.
So Kueue would be ready after one to four minutes. Therefore the tests create the certificate before they
install Kueue, and Kueue uses it.
"""

import base64
import os
import subprocess
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rft_operator.cluster import ClusterError, Conflict, NotFound, connect
from tests.integration.account_support import tool
from tests.integration.operator_support import CONFIG_MAPS, CRDS, Api, Object
from tests.waiting import wait_until
from tests.with_kueue import ARCHIVE, CHART, FAILED, IMAGE, INSTALLED, remove, wait_for_image

NAMESPACE = "kueue-system"
GROUP = "kueue.x-k8s.io"
KUEUE = f"apis/{GROUP}/v1beta1"
CONTROLLER = f"apis/apps/v1/namespaces/{NAMESPACE}/deployments/kueue-controller-manager"
NAMESPACES = "api/v1/namespaces"
OURS = ("rft.dev/installed-by", "tests")
"""Label of Kueue's namespace if the tests have installed Kueue. Another Kueue is never changed."""
_SECRET, _CONFIGURATION = "kueue-webhook-server-cert", "kueue-manager-config"
_FILE = "controller_manager_config.yaml"
_SERVER = f"kueue-webhook-service.{NAMESPACE}.svc"
_AUTHORITY = "kueue-ca"
_LIFE = timedelta(days=365)
"""How long the certificates are valid. Kueue replaces certificates that expire within 90 days."""


def _pem(key: rsa.RSAPrivateKey) -> bytes:
    """Return a private key as PEM in the form PKCS #1, the only one that Kueue reads."""
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _certificate(
    name: str, key: rsa.RSAPrivateKey, signer: rsa.RSAPrivateKey, purpose: x509.ExtensionType
) -> bytes:
    now = datetime.now(UTC)
    subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in (name, _AUTHORITY))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(purpose, critical=True)
    )
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def certificates() -> dict[str, bytes]:
    """Return a new CA and a certificate for Kueue's webhook, as the files of Kueue's Secret."""
    authority, server = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    is_authority = x509.BasicConstraints(ca=True, path_length=None)
    is_server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return {
        "ca.crt": _certificate(_AUTHORITY, authority, authority, is_authority),
        "ca.key": _pem(authority),
        "tls.crt": _certificate(_SERVER, server, authority, is_server),
        "tls.key": _pem(server),
    }


def secret() -> Object:
    """Return the Secret with the webhook's certificate. With its labels Helm makes it part of the release."""
    owner = {"meta.helm.sh/release-name": "kueue", "meta.helm.sh/release-namespace": NAMESPACE}
    labels = {"app.kubernetes.io/managed-by": "Helm"}
    data = {name: base64.b64encode(content).decode() for name, content in certificates().items()}
    metadata = {"name": _SECRET, "labels": labels, "annotations": owner}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


def chart_values(configuration: str, image: str | None) -> Object:
    """Return the values for Kueue's chart.

    - ``configuration``: the controller's configuration in the chart, as YAML.
    - ``image``: an image that is already on the nodes. None: the chart's image.
    """
    manager: Object = {"resources": {"requests": {"cpu": "50m"}}}
    if image:
        repository, _, tag = image.rpartition(":")
        manager["image"] = {"repository": repository, "tag": tag, "pullPolicy": "Never"}
    # The chart sets the period of the probe to its initial delay, so there is one probe per second. On a busy
    # machine several probes in a row may fail.
    probe = {"initialDelaySeconds": 1, "timeoutSeconds": 5, "failureThreshold": 15}
    config: Object = yaml.safe_load(configuration)
    # There is only one controller, so it needs no Lease. With a Lease, a restarted controller would wait up
    # to 15 s until the Lease of the stopped controller has expired.
    config["leaderElection"] = {"leaderElect": False}
    return {
        "controllerManager": {"manager": manager, "readinessProbe": probe},
        "managerConfig": {"controllerManagerConfigYaml": yaml.safe_dump(config)},
    }


def answers(api: Api) -> bool:
    """Return whether Kueue's webhook answers requests to create a Job or an object of Kueue.

    Until it answers, the API server refuses new Jobs. Helm does not wait until it answers.
    """
    flavor = {"apiVersion": f"{GROUP}/v1beta1", "kind": "ResourceFlavor", "metadata": {"name": "probe"}}
    container = {"name": "probe", "image": "probe"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    job = {"kind": "Job", "metadata": {"name": "probe"}, "spec": {"template": template}}
    try:
        api.create(f"{KUEUE}/resourceflavors?dryRun=All", flavor)
        api.create("apis/batch/v1/namespaces/default/jobs?dryRun=All", job)
    except ClusterError:
        return False
    return True


class KueueRelease:
    """An installation of Kueue's chart by the tests."""

    def __init__(self, kubeconfig: Path) -> None:
        self._api = Api(connect(str(kubeconfig)), NAMESPACE)
        self._kubeconfig = f"--kubeconfig={kubeconfig}"
        self._installed: Object = {}
        """The controller's configuration after the installation."""
        self._current: Object = {}

    def _run(self, program: str, *words: str, stdin: str | None = None, check: bool = True) -> str:
        """Run helm or kubectl in Kueue's namespace. Return its output.

        If the program fails and ``check`` is set, raise AssertionError with its stderr. Without ``check`` the
        output contains its stderr.
        """
        command = [tool(program), self._kubeconfig, "--namespace", NAMESPACE, *words]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{program} {' '.join(words)}: {done.stderr}"
        return done.stdout if check else done.stdout + done.stderr

    def namespace(self) -> Object | None:
        """Return Kueue's namespace, or None if it does not exist."""
        return self._api.find(NAMESPACES, NAMESPACE)

    def is_left(self) -> bool:
        """Return whether the cluster has a Kueue that the tests installed, in this or an earlier session."""
        found = self.namespace()
        return found is not None and found["metadata"].get("labels", {}).get(OURS[0]) == OURS[1]

    def obstacle(self) -> str:
        """Return "" if the tests can install Kueue. Else the reason: Kueue or its namespace exists."""
        if self.namespace() is None and self._api.find(CRDS, f"clusterqueues.{GROUP}") is None:
            return ""
        return f"the cluster has a Kueue that the tests have not installed, or a namespace {NAMESPACE}"

    def install(self, chart: str, image: str | None) -> None:
        """Install the chart, and wait until the webhook answers."""
        values = yaml.safe_load(self._run("helm", "show", "values", chart))
        configuration = values["managerConfig"]["controllerManagerConfigYaml"]
        labels = dict([OURS])
        self._api.create(NAMESPACES, {"metadata": {"name": NAMESPACE, "labels": labels}})
        self._api.create("api/v1/namespaces/{}/secrets", secret())
        wanted = yaml.safe_dump(chart_values(configuration, image))
        self._run("helm", "install", "kueue", chart, "--values", "-", stdin=wanted)
        self._wait_for_answers()
        installed = self._api.get(CONFIG_MAPS, _CONFIGURATION)["data"][_FILE]
        self._installed = self._current = yaml.safe_load(installed)

    def configure(self, **changes: Any) -> None:
        """Set the controller's configuration to that of the installation, with the fields in ``changes``.

        The controller reads its configuration only when it starts, so it is restarted if anything changes.
        Wait until the webhook answers.
        """
        wanted = {**self._installed, **changes}
        if wanted != self._current:
            self._api.patch(CONFIG_MAPS, _CONFIGURATION, {"data": {_FILE: yaml.safe_dump(wanted)}})
            self._current = wanted
            for replicas in (0, 1):
                self._api.call("PATCH", CONTROLLER, {"spec": {"replicas": replicas}})
                what = f"Kueue's controller has {replicas} ready replicas"
                wait_until(what, partial(self._has_ready, replicas), 120)
        self._wait_for_answers()

    def _has_ready(self, replicas: int) -> bool:
        found = self._api.call("GET", CONTROLLER)
        status = found.get("status", {})
        if status.get("observedGeneration", 0) < found["metadata"]["generation"]:
            return False
        return bool(status.get("replicas", 0) == status.get("readyReplicas", 0) == replicas)

    def _wait_for_answers(self) -> None:
        try:
            wait_until("Kueue's webhook answers", partial(answers, self._api), 240, poll=0.5)
        except AssertionError as error:
            pods = self._run("kubectl", "describe", "pods", check=False)
            log = self._run("kubectl", "logs", "--selector=control-plane=controller-manager", check=False)
            raise AssertionError(f"{error}\n{pods[-3000:]}\n{log[-3000:]}") from None

    def remove(self) -> None:
        """Uninstall the chart with its CRDs, and wait until they are gone. Delete the namespace.

        The installation may have been interrupted at any moment.
        """
        self._run("helm", "uninstall", "kueue", "--ignore-not-found")
        wait_until("Kueue's CRDs are gone", self._release_objects, 120)
        with suppress(NotFound, Conflict):  # Conflict: the namespace is being deleted already
            self._api.call("DELETE", f"{NAMESPACES}/{NAMESPACE}")

    def _release_objects(self) -> bool:
        """Return whether Kueue's CRDs are gone. Remove the finalizers of Kueue's remaining objects.

        Usually Kueue removes these finalizers, but it does not run any more.
        """
        selector = "labelSelector=app.kubernetes.io/name%3Dkueue"
        left = self._api.call("GET", f"{CRDS}?{selector}").get("items") or []
        for definition in left:
            names = definition["spec"]["names"]["plural"]
            version = next(v["name"] for v in definition["spec"]["versions"] if v["storage"])
            for item in self._objects(f"apis/{GROUP}/{version}/{names}"):
                _drop_finalizers(self._api, f"apis/{GROUP}/{version}", names, item["metadata"])
        return not left

    def _objects(self, path: str) -> list[Object]:
        try:
            return self._api.call("GET", path).get("items") or []
        except ClusterError:  # the CRD is gone or is being deleted; remove() calls this again
            return []


def _drop_finalizers(api: Api, version: str, names: str, metadata: Object) -> None:
    place = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    if metadata.get("finalizers"):
        with suppress(ClusterError):  # remove() tries this again
            api.patch(f"{version}{place}/{names}", metadata["name"], {"metadata": {"finalizers": None}})


def clear_interrupted(config: pytest.Config, kubeconfig: Path) -> None:
    """Remove the Kueue that an interrupted test session has left. Otherwise it may refuse every new Job."""
    if INSTALLED in config.stash:
        return
    release = KueueRelease(kubeconfig)
    if release.is_left():
        release.remove()
        wait_until("Kueue's namespace is gone", lambda: release.namespace() is None, 120)


def installed(config: pytest.Config, kubeconfig: Path) -> KueueRelease:
    """Return Kueue with its chart's configuration. The first call installs the chart in RFT_KUEUE_CHART.

    Skip the test if this variable is not set, or if the cluster has a Kueue that the tests did not install.
    If the installation failed, fail this test and all later tests that need Kueue.
    """
    if not (chart := os.environ.get(CHART)):
        pytest.skip(
            f"no Kueue: set {CHART} to its chart, {IMAGE} to its image, {ARCHIVE} to an archive of the image"
        )
    if FAILED in config.stash:
        pytest.fail(f"an earlier test could not install Kueue: {config.stash[FAILED]}", pytrace=False)
    for program in ("helm", "kubectl"):
        tool(program)
    release = config.stash.get(INSTALLED, None)
    if release is None:
        clear_interrupted(config, kubeconfig)
        release = KueueRelease(kubeconfig)
        if obstacle := release.obstacle():
            pytest.skip(obstacle)
        config.add_cleanup(partial(remove, config))
        config.stash[INSTALLED] = release
        try:
            wait_for_image(config)
            release.install(chart, os.environ.get(IMAGE))
        except BaseException as error:  # a timeout of the test is not an Exception
            config.stash[FAILED] = str(error)
            remove(config)
            raise
    assert isinstance(release, KueueRelease)
    release.configure()
    return release
