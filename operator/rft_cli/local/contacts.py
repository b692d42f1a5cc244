"""Says which servers a local run contacts, and which of the user's credentials are sent to them.

A manifest may come from a stranger. So a credential from the user's shell or home folder is sent only to
these servers:

- a server that an environment variable of the user names, such as ``HF_ENDPOINT``
- the vendor's own server
- a server that ``--send-token-to`` names
- a server whose host has an entry in the user's netrc file; it gets only the credentials of this entry

For the same reason, the result is written only to a destination that ``--push-to`` names. Otherwise a
stranger's manifest could name a repository or a bucket of the user, and the user's credential would let the
run overwrite its content.
"""

import netrc
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Self

from rft_api.graders import Grader
from rft_api.job import RFTJobSpec
from rft_api.lifecycle import Mlflow, ResultTarget, Wandb
from rft_cli.errors import INVALID, UserError
from rft_cli.local.inputs import Inputs
from rft_cli.local.origins import Permission, origin_of, shown
from rft_graders.tokens import environment_variable
from rft_run.destination import PUSH_TOKEN, Destination, HubDestination, destination_of, read_destination
from rft_run.secret_forms import without_credentials

HUB = "https://huggingface.co"
S3, GOOGLE = "https://s3.amazonaws.com", "https://storage.googleapis.com"
WANDB = ("https://api.wandb.ai", "https://api.forge.coreweave.com")
"""W&B's own servers. Which of them is the default depends on the release of W&B's library."""
YOUR_WANDB = "the server that wandb login chose, or W&B's own"
"""A text in place of an address. It is shown if neither the manifest nor the variable ``WANDB_BASE_URL``
names a server of W&B."""
OPTION = "--send-token-to"
PUSH_OPTION, PUBLIC_OPTION = "--push-to", "--public"


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
        """Return the names in ``variables`` that are set as environment variables, and are not empty."""
        return tuple(name for name in variables if self.environment.get(name))

    def first(self, *variables: str) -> str:
        """Return the value of the first name in ``variables`` that is set, or "" if none is set."""
        return next((self.environment[name] for name in self.names(*variables)), "")

    def files(self, *paths: str) -> tuple[str, ...]:
        """Return those of ``paths`` that are files, each with ``~/`` before it.

        ``paths`` are relative to the home folder.
        """
        return tuple(f"~/{path}" for path in paths if (self.home / path).is_file())

    def is_on(self, variable: str) -> bool:
        """Whether an environment variable that is a switch is on: ``1``, ``true``, ``yes`` or ``on``."""
        return self.environment.get(variable, "").lower() in ("1", "true", "yes", "on")


@dataclass(frozen=True)
class Contact:
    """A server that a run contacts because of a field of the manifest.

    - ``field``: the path of this field, such as ``spec.dataset.uri``
    - ``address``: the address of the server, or the URI in the field
    """

    field: str
    address: str
    credentials: tuple[str, ...] = ()
    """Names of the environment variables and files with the secrets that are sent to this server. If they are
    not known exactly, a text such as "credentials of Databricks"."""
    trusted: tuple[str, ...] = ()
    """The server addresses that may get ``credentials`` without ``--send-token-to``: the address in an
    environment variable of the user, or else the vendor's own addresses."""
    setting: str = ""
    """Name of the environment variable with which the user chose the address in ``trusted``, or empty if no
    variable chose it. It is shown in error messages."""
    own: tuple[str, ...] = ()
    """Names of files in which the user has stored credentials for exactly this host, such as netrc. These
    credentials need no permission."""
    writes: Destination | None = None
    """Where the run writes its result on this server, or None if it only reads."""

    @property
    def place(self) -> str:
        """The scheme, host and port of the address. The rest is left out, because it may contain secrets.

        If ``origin_of`` returns None for the address, it is the address without a password.
        """
        origin = origin_of(self.address)
        return str(origin) if origin is not None else without_credentials(shown(self.address))

    def __str__(self) -> str:
        sent = ", ".join((*self.credentials, *self.own)) or "no credential"
        written = f", which writes {_described(self.writes)}" if self.writes is not None else ""
        return f"{self.place} ({self.field}{written}): {sent}"


class Allowed(NamedTuple):
    """What the user allows on the command line or by environment variables."""

    servers: Sequence[Permission] = ()
    """The servers that ``--send-token-to`` names."""
    destinations: Sequence[Destination] = ()
    """The destinations that ``--push-to`` names."""
    public: bool = False
    """Whether the result may be written to a public repository of the hub."""


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
    """Return the servers that graders of the kinds ``http`` and ``model`` contact. None of them is trusted,
    because no environment variable of the user names such a server.
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
    """Return the hub as a server that a run contacts because of ``field``.

    The hub's address is the user's ``HF_ENDPOINT`` or the default. A manifest cannot change it.
    """
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
    """Yield the server to which ``spec.output`` writes the adapter: the hub, or the server of an S3 bucket.

    ``writes`` of the contact is the repository, or the folder in the bucket.
    """
    to = destination_of(output)
    if output.hub is not None:
        contact = _of_hub("spec.output.hub.repository", shell)
        own = shell.names(PUSH_TOKEN)
        yield replace(contact, credentials=own or contact.credentials, writes=to)
    if output.s3 is not None:
        yield replace(_dataset("spec.output.s3.uri", output.s3.uri, shell), writes=to)


def _dataset(field: str, uri: str, shell: Shell) -> Contact:
    scheme = uri.partition("://")[0]
    if "::" in uri or scheme not in ("http", "https", "hf", "s3", "gs", "gcs"):
        # fsspec knows many more schemes, and the library of each finds credentials in its own way.
        return Contact(field, uri, ("the credentials that fsspec finds on this machine",))
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
    """Return the contact, with the credentials that the user's netrc file has for the contact's host.

    The default entry of this file applies to every host. So the default entry is sent only to a server that
    is trusted, or that ``--send-token-to`` names.
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


def permissions(
    send_token_to: Sequence[str], push_to: Sequence[str] = (), *, public: bool = False
) -> Allowed:
    """Return what the options ``--send-token-to``, ``--push-to`` and ``--public`` allow.

    Raises UserError if a value of ``--send-token-to`` names no server, or a value of ``--push-to`` names no
    destination.
    """
    servers = [Permission(text) for text in send_token_to]
    for permission in servers:
        if not permission.is_readable:
            raise UserError(
                f"{OPTION}: {shown(permission.text)!r} names no server; allowed are HOST, HOST:PORT and an"
                " address; write for instance judge.example.com",
                INVALID,
            )
    return Allowed(servers, [_destination(text) for text in push_to], public)


def _destination(text: str) -> Destination:
    try:
        return read_destination(text)
    except ValueError as error:
        raise UserError(f"{PUSH_OPTION}: {error}", INVALID) from error


def refuse_untrusted(found: Sequence[Contact], allowed: Allowed) -> None:
    """Raise UserError if a server in ``found`` would get a credential, but is neither trusted nor allowed, or
    if the result would be written to a destination that is not allowed.
    """
    refused = [
        *(_refusal(contact) for contact in found if not _may_be_sent(contact, allowed.servers)),
        *filter(None, (_push_refusal(contact, allowed) for contact in found)),
    ]
    if refused:
        raise UserError("\n".join(refused), INVALID)


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
    place = origin.place if origin is not None else f"'{without_credentials(shown(contact.address))}'"
    return (
        f"{contact.field}: this machine would send {names} to {contact.place}; {allowed}{setting};"
        f" {write} this server, add {OPTION} {place}"
    )


def _push_refusal(contact: Contact, allowed: Allowed) -> str:
    """Return why the result may not be written to the contact's destination. Return "" if it may be written,
    or if the run writes nothing to this server.

    The destination must be equal to one that ``--push-to`` names, because another prefix or branch may have
    other results of the user. This is checked even if no credential was found, because the libraries also
    look for credentials in places that this module does not know.
    """
    to = contact.writes
    if to is None:
        return ""
    permitted = list(map(str, allowed.destinations))
    missing = [] if str(to) in permitted else [f"{PUSH_OPTION} {to}"]
    if _is_public(to) and not allowed.public:
        missing.append(PUBLIC_OPTION)
    if not missing:
        return ""
    names = f"allowed is {' or '.join(permitted)}" if permitted else "no option of yours names a destination"
    private = ", if it is private" if permitted and PUBLIC_OPTION in missing else ""
    return (
        f"{contact.field}: this machine would write the adapter to {_described(to)}; {names}{private}; to"
        f" allow this one, add {' '.join(missing)}, or remove spec.output from the manifest"
    )


def _is_public(to: Destination) -> bool:
    return isinstance(to, HubDestination) and not to.private


def _described(to: Destination) -> str:
    return f"{to}, a public repository" if _is_public(to) else str(to)
