"""Says which servers a local run contacts, and which of the user's credentials are sent to them.

A manifest may come from a stranger. So a credential from the user's shell or home folder is sent only to
these servers:

- a server that a setting of the user names
- the vendor's own server
- a server that ``--send-token-to`` names
"""

import netrc
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from rft_api.graders import Grader
from rft_api.job import RFTJobSpec
from rft_api.lifecycle import Mlflow, ResultTarget, Wandb
from rft_cli.errors import INVALID, UserError
from rft_cli.local.inputs import Inputs
from rft_cli.local.origins import Permission, origin_of, shown
from rft_graders.tokens import environment_variable
from rft_run.destination import PUSH_TOKEN, destination_of

HUB = "https://huggingface.co"
S3, GOOGLE = "https://s3.amazonaws.com", "https://storage.googleapis.com"
WANDB = ("https://api.wandb.ai", "https://api.forge.coreweave.com")
"""W&B's own servers. Which of them is the default depends on the release of W&B's library."""
YOUR_WANDB = "the server that wandb login chose, or W&B's own"
"""A text in place of an address. It is shown if neither the manifest nor the environment names W&B's
server."""
OPTION = "--send-token-to"


@dataclass(frozen=True)
class Shell:
    """The environment variables and the home folder of the user. The trainer process inherits both."""

    environment: Mapping[str, str]
    home: Path

    @classmethod
    def of_this_process(cls) -> Self:
        """Return the environment variables and the home folder that a child of this process inherits."""
        try:
            home = Path.home()
        except RuntimeError:  # no HOME, and a user id without an account: then there are no files of the user
            home = Path(os.devnull)
        return cls(os.environ, home)

    def names(self, *variables: str) -> tuple[str, ...]:
        """Return the names in ``variables`` that are set as environment variables."""
        return tuple(name for name in variables if self.environment.get(name))

    def first(self, *variables: str) -> str:
        """Return the value of the first of the ``variables`` that is set, or an empty text."""
        return next((self.environment[name] for name in self.names(*variables)), "")

    def files(self, *paths: str) -> tuple[str, ...]:
        """Return the paths that are files in the home folder, each with ``~/`` before it."""
        return tuple(f"~/{path}" for path in paths if (self.home / path).is_file())

    def is_on(self, variable: str) -> bool:
        """Whether an environment variable that is a switch is on: ``1``, ``true``, ``yes`` or ``on``."""
        return self.environment.get(variable, "").lower() in ("1", "true", "yes", "on")


@dataclass(frozen=True)
class Contact:
    """A server that a run contacts because of a field of the manifest."""

    field: str
    address: str
    credentials: tuple[str, ...] = ()
    """Names of the variables and files with the secrets that are sent to this server."""
    trusted: tuple[str, ...] = ()
    """The addresses that may get these credentials: the one in the user's setting, or else the vendor's."""
    setting: str = ""
    """Name of the environment variable that sets the trusted address, or empty."""
    own: tuple[str, ...] = ()
    """Names of files in which the user has stored credentials for exactly this host, such as netrc. These
    credentials need no permission."""

    @property
    def place(self) -> str:
        """The scheme, host and port of the address. The rest is left out, because it may contain secrets."""
        origin = origin_of(self.address)
        return str(origin) if origin is not None else shown(self.address)

    def __str__(self) -> str:
        sent = ", ".join((*self.credentials, *self.own)) or "no credential"
        return f"{self.place} ({self.field}): {sent}"


def contacts(spec: RFTJobSpec, inputs: Inputs, shell: Shell) -> list[Contact]:
    """Return the servers that a run contacts, with the credentials in ``shell`` that each of them gets."""
    found = [*_hub(spec, shell), *_datasets(inputs, shell), *graders(spec.graders, shell)]
    if spec.output is not None:
        found += _output(spec.output, shell)
    if spec.tracking is not None and spec.tracking.wandb is not None:
        found += _wandb(spec.tracking.wandb, shell)
    if spec.tracking is not None and spec.tracking.mlflow is not None:
        found += _mlflow(spec.tracking.mlflow, shell)
    return found


def graders(given: Sequence[Grader], shell: Shell) -> list[Contact]:
    """Return the servers of the graders ``http`` and ``model``. No setting of the user names such servers,
    so none of them is trusted.
    """
    found = []
    for i, grader in enumerate(given):
        kind = grader.http or grader.model
        if kind is not None:
            field = f"spec.graders[{i}].{grader.kind}.url"
            ref = kind.secret_ref
            variables = (environment_variable(grader.name, ref.key),) if ref is not None else ()
            found.append(Contact(field, kind.url, shell.names(*variables)))
    return found


def _hub(spec: RFTJobSpec, shell: Shell) -> Iterator[Contact]:
    name = spec.model.name
    is_path = name.startswith(("/", ".", "~")) or Path(name).is_dir()
    if not is_path and not shell.is_on("HF_HUB_OFFLINE"):
        yield _of_hub("spec.model.name", shell)


def _of_hub(field: str, shell: Shell) -> Contact:
    """Return the hub as a server that a run contacts. A manifest cannot change the hub's address."""
    address = shell.first("HF_ENDPOINT") or HUB
    sent = () if shell.is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") else _hub_tokens(shell)
    return Contact(field, address, sent, (address,))


def _hub_tokens(shell: Shell) -> tuple[str, ...]:
    given = shell.names("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    if given:
        return given
    cache = Path(shell.first("XDG_CACHE_HOME") or shell.home / ".cache")
    folder = Path(shell.first("HF_HOME") or cache / "huggingface")
    file = Path(shell.first("HF_TOKEN_PATH") or folder / "token")
    return (str(file),) if file.is_file() else ()


def _datasets(inputs: Inputs, shell: Shell) -> Iterator[Contact]:
    given = {"spec.dataset.uri": inputs.dataset, "spec.evaluation.dataset.uri": inputs.evaluation}
    for field, source in given.items():
        if source is not None and "://" in source.location:
            yield _dataset(field, source.location, shell)


def _output(output: ResultTarget, shell: Shell) -> Iterator[Contact]:
    """Yield the server that gets the adapter. Its ``field`` also says to which place the adapter is
    written.
    """
    if output.hub is not None:
        contact = _of_hub(f"spec.output.hub, which writes {destination_of(output)}", shell)
        own = shell.names(PUSH_TOKEN)
        yield replace(contact, credentials=own or contact.credentials)
    if output.s3 is not None:
        field = f"spec.output.s3.uri, which writes {output.s3.uri}"
        yield replace(_dataset("spec.output.s3.uri", output.s3.uri, shell), field=field)


def _dataset(field: str, uri: str, shell: Shell) -> Contact:
    scheme = uri.partition("://")[0]
    if "::" in uri or scheme not in ("http", "https", "hf", "s3", "gs", "gcs"):
        # fsspec knows many more schemes, and the library of each finds credentials in its own way.
        return Contact(field, uri, ("whatever credentials fsspec finds",))
    if scheme == "hf":
        return _of_hub(field, shell)
    if scheme == "s3":
        address = shell.first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") or S3
        sent = shell.names("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
        return Contact(field, address, sent or shell.files(".aws/credentials", ".aws/config"), (address,))
    if scheme in ("gs", "gcs"):
        address = shell.first("STORAGE_EMULATOR_HOST") or GOOGLE
        sent = shell.names("GOOGLE_APPLICATION_CREDENTIALS")
        files = shell.files(".config/gcloud/application_default_credentials.json")
        return Contact(field, address, sent or files, (address,))
    return Contact(field, uri)


def _wandb(settings: Wandb, shell: Shell) -> Iterator[Contact]:
    if shell.first("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return
    own = shell.first("WANDB_BASE_URL")
    sent = shell.names("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
    if not (settings.base_url or own):
        yield Contact("spec.tracking.wandb", YOUR_WANDB, sent or shell.files(".netrc"), (YOUR_WANDB,))
        return
    field, address = "spec.tracking.wandb.baseUrl", settings.base_url or own
    trusted = (own,) if own else WANDB
    yield _with_netrc(Contact(field, address, sent, trusted, "WANDB_BASE_URL"), shell)


def _mlflow(settings: Mlflow, shell: Shell) -> Iterator[Contact]:
    field, address, setting = "spec.tracking.mlflow.trackingUri", settings.tracking_uri, "MLFLOW_TRACKING_URI"
    scheme, trusted = address.partition(":")[0].lower(), tuple(filter(None, [shell.first(setting)]))
    if scheme in ("databricks", "databricks-uc"):  # the server is the one of the user's own profile
        yield Contact(field, address, ("credentials of Databricks",), (address,))
    elif scheme in ("http", "https"):
        variables = ("TOKEN", "USERNAME", "PASSWORD", "AUTH", "AWS_SIGV4")
        sent = shell.names(*(f"MLFLOW_TRACKING_{name}" for name in variables))
        sent += shell.files(".mlflow/credentials")
        yield _with_netrc(Contact(field, address, sent, trusted, setting), shell)
    elif "://" in address and scheme not in ("file", "sqlite"):
        # A plugin or a database, which finds credentials in its own way.
        yield Contact(field, address, ("whatever credentials MLflow finds",), trusted, setting)


def _with_netrc(contact: Contact, shell: Shell) -> Contact:
    """Return the contact with the credentials for its host that the user's netrc file has.

    The default entry of this file applies to every host. So the default entry is sent only to a server that
    is trusted or permitted.
    """
    origin = origin_of(contact.address)
    path = Path(shell.first("NETRC") or shell.home / ".netrc")
    try:
        hosts = netrc.netrc(path).hosts if origin is not None else {}
    except (OSError, ValueError, netrc.NetrcParseError):  # the file may have any bytes
        return contact
    if origin is not None and origin.host in hosts:
        return replace(contact, own=("netrc",))
    more = ("the default entry of netrc",) if "default" in hosts else ()
    return replace(contact, credentials=contact.credentials + more)


def permissions(texts: Sequence[str]) -> list[Permission]:
    """Return the servers that ``--send-token-to`` names. Raises UserError if a text names no server."""
    found = [Permission(text) for text in texts]
    for permission in found:
        if not permission.is_readable:
            raise UserError(
                f"{OPTION}: {shown(permission.text)!r} names no server; allowed are HOST, HOST:PORT and an"
                " address; write for instance judge.example.com",
                INVALID,
            )
    return found


def refuse_untrusted(found: Sequence[Contact], permitted: Sequence[Permission]) -> None:
    """Raise UserError if a server in ``found`` would get a credential, but is neither trusted nor permitted.

    ``permitted``: the servers that ``--send-token-to`` names.
    """
    refused = [contact for contact in found if not _may_be_sent(contact, permitted)]
    if refused:
        raise UserError("\n".join(map(_refusal, refused)), INVALID)


def _may_be_sent(contact: Contact, permitted: Sequence[Permission]) -> bool:
    if not contact.credentials or contact.address in contact.trusted:
        return True
    origin = origin_of(contact.address)
    agrees = origin is not None and origin in map(origin_of, contact.trusted)
    return agrees or any(permission.covers(contact.address) for permission in permitted)


def _refusal(contact: Contact) -> str:
    origin = origin_of(contact.address)
    names = ", ".join(contact.credentials)
    trusted = shown(" or ".join(contact.trusted))
    allowed = f"allowed is {trusted}" if trusted else "no setting of yours names a server"
    setting = f" ({contact.setting})" if contact.setting else ""
    write = f"write {shown(contact.trusted[0])}, or to allow" if trusted else "to allow"
    place = origin.place if origin is not None else f"'{shown(contact.address)}'"
    return (
        f"{contact.field}: this machine would send {names} to {contact.place}; {allowed}{setting};"
        f" {write} this server, add {OPTION} {place}"
    )
