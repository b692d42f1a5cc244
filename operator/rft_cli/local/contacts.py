"""Finds the servers that a run on this machine contacts, and refuses the run if one of them would get a
credential of the user without permission.

A manifest may come from a stranger. So a credential from the user's shell or home folder is sent only to
these servers:

- a server that an environment variable of the user names, such as ``HF_ENDPOINT``
- the vendor's own server
- a server that ``--send-token-to`` names
- a server whose host has an entry in the user's netrc file; it gets only the credentials of this entry

For the same reason, the trained adapter is uploaded only to a destination that ``--push-to`` names. Otherwise
a stranger's manifest could name a repository or a bucket of the user, and the run would overwrite its content
with the user's credential.
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
"""Addresses of W&B's own servers. The release of W&B's library decides which of them is the default."""
YOUR_WANDB = "the server that wandb login chose, or W&B's own"
"""The text that is shown in place of an address if neither the manifest nor the variable ``WANDB_BASE_URL``
names a server of W&B."""
OPTION = "--send-token-to"
PUSH_OPTION, PUBLIC_OPTION = "--push-to", "--public"


@dataclass(frozen=True)
class Shell:
    """The environment variables and the home folder of the user, in which libraries look for credentials. The
    trainer process inherits both.
    """

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
        """Return those of the names ``variables`` whose environment variable is set and not empty."""
        return tuple(name for name in variables if self.environment.get(name))

    def first(self, *variables: str) -> str:
        """Return the value of the first environment variable in ``variables`` that is set and not empty.
        Return "" if there is none.
        """
        return next((self.environment[name] for name in self.names(*variables)), "")

    def files(self, *paths: str) -> tuple[str, ...]:
        """Return those of ``paths`` that are existing files, each in the form ``~/PATH``.

        ``paths`` are relative to the home folder.
        """
        return tuple(f"~/{path}" for path in paths if (self.home / path).is_file())

    def is_on(self, variable: str) -> bool:
        """Return whether an environment variable is switched on: ``1``, ``true``, ``yes`` or ``on``, in upper
        or lower case.
        """
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
    """The credentials that the run would send to this server: the names of environment variables and files.
    If they are not known exactly, a text such as "credentials of Databricks"."""
    trusted: tuple[str, ...] = ()
    """The server addresses that may get ``credentials`` without ``--send-token-to``: the address in an
    environment variable of the user, or else the vendor's own addresses."""
    setting: str = ""
    """Name of the environment variable with which the user chose the address in ``trusted``, or empty if no
    variable chose it. It is shown in error messages."""
    own: tuple[str, ...] = ()
    """Names of files in which the user has stored credentials for exactly this host, such as netrc. They are
    sent without ``--send-token-to``."""
    writes: Destination | None = None
    """Where the run uploads the adapter on this server, or None if the run uploads nothing to it."""

    @property
    def place(self) -> str:
        """The scheme, host and port of the address, for messages. The path is left out, because it may
        contain secrets.

        An address in an unusual form, which ``origin_of`` cannot parse, is shown as it is, but without a
        password.
        """
        origin = origin_of(self.address)
        return str(origin) if origin is not None else without_credentials(shown(self.address))

    def __str__(self) -> str:
        sent = ", ".join((*self.credentials, *self.own)) or "no credential"
        written = f", which writes {_described(self.writes)}" if self.writes is not None else ""
        return f"{self.place} ({self.field}{written}): {sent}"


class Allowed(NamedTuple):
    """The permissions that the user gives by options of the command line or by environment variables."""

    servers: Sequence[Permission] = ()
    """The servers that may get a credential, from ``--send-token-to``."""
    destinations: Sequence[Destination] = ()
    """The destinations to which the adapter may be uploaded, from ``--push-to``."""
    public: bool = False
    """Whether the adapter may be uploaded to a public repository of the hub, from ``--public``."""


def contacts(spec: RFTJobSpec, inputs: Inputs, shell: Shell) -> list[Contact]:
    """Return all servers that a run on this machine contacts: those of the model, the datasets, the graders,
    ``spec.output`` and ``spec.tracking``. Each entry has the credentials in ``shell`` that this server gets.
    """
    found = [*_hub(spec, shell), *_datasets(inputs, shell), *graders(spec.graders, shell)]
    if spec.output is not None:
        found += _output(spec.output, shell)
    if spec.tracking is not None and spec.tracking.wandb is not None:
        found += _wandb(spec.tracking.wandb, shell)
    if spec.tracking is not None and spec.tracking.mlflow is not None:
        found += _mlflow(spec.tracking.mlflow, shell)
    return found


def graders(given: Sequence[Grader], shell: Shell) -> list[Contact]:
    """Return the servers that graders of the kinds ``http`` and ``model`` contact. ``given`` is
    ``spec.graders``.

    None of these servers is trusted, because no environment variable of the user names such a server.
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
    """Return the Hugging Face Hub as a server that a run contacts because of the manifest's field ``field``.

    The hub's address is the user's ``HF_ENDPOINT`` or the default. A manifest cannot change this address.
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
    """Yield the server to which the run uploads the adapter: the hub, or the server of an S3 bucket.

    ``output`` is ``spec.output``. In the yielded contact, ``writes`` is the repository, or the folder in the
    bucket.
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
    if scheme in ("databricks", "databricks-uc"):  # the server comes from the user's own Databricks profile
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
    """Return ``contact`` with the credentials that the user's netrc file has for its host, if there are any.

    An entry for exactly this host is added to ``own``. The default entry of the file applies to every host.
    So it is added to ``credentials``, and is sent only to a trusted server, or with ``--send-token-to``.
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
    """Parse the values of the options ``--send-token-to``, ``--push-to`` and ``--public``. Return the
    permissions that they give.

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
    """Check the servers ``found``, which a run contacts, before the run starts.

    Raises UserError if a server would get a credential, but is neither trusted nor in ``allowed``. Also
    raises UserError if the run would upload the adapter to a destination that is not in ``allowed``.
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
    """Return the error message if the run may not upload the adapter to ``contact.writes``. Return "" if the
    upload is allowed, or if the run uploads nothing to this server.

    The destination must be equal to a value of ``--push-to``, because another prefix or branch may have
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
