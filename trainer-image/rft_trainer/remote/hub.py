"""Copies files to a repository of the Hugging Face hub, in one commit."""

import logging
import os
from io import BufferedReader
from pathlib import Path
from typing import Any

from rft_run.destination import MAIN, PUSH_TOKEN, HubDestination
from rft_trainer.remote.sending import Pushed, PushError, is_temporary, opened, said, set_variables

_MESSAGE = "Upload by rft push"


def push_to_hub(folder: Path, to: HubDestination) -> Pushed:
    """Copy the files of a folder to a repository of the Hugging Face hub, in one commit.

    If the repository or the branch is missing, it is created. Files that the repository already has with the
    same content are not sent again. Raises PushError if the copy fails.
    """
    import huggingface_hub

    # The library logs a warning if it gets open files instead of paths. Here this is intended.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    api = huggingface_hub.HfApi(token=os.environ.get(PUSH_TOKEN) or None)
    try:
        _prepare(api, to)
        with opened(folder) as files:
            before = _oids(api, to)
            _commit(api, to, files)
            after = _oids(api, to)
    except PushError:
        raise
    except Exception as error:  # httpx errors, the library's own ones, OSError and ValueError
        raise _error_of(to, error) from None  # from None hides signed addresses
    kept = [name for name in files if before.get(name) is not None and before[name] == after.get(name)]
    branch = "" if to.revision == MAIN else f"/tree/{to.revision}"
    return Pushed(
        f"{api.endpoint}/{to.repository}{branch}",
        [name for name in files if name not in kept],
        kept,
        sorted(name for name in after if name not in files and name != ".gitattributes"),
    )


def _prepare(api: Any, to: HubDestination) -> None:
    """Create the repository and the branch that ``to`` names, if they are missing.

    ``api``: the ``HfApi`` of huggingface_hub. Raises PushError if the repository is public, but must be
    private.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        found = api.repo_info(to.repository, repo_type="model")
    except RepositoryNotFoundError:
        api.create_repo(to.repository, repo_type="model", private=to.private, exist_ok=True)
        found = api.repo_info(to.repository, repo_type="model")
    if to.private and found.private is False:
        raise PushError(
            f"{to}: the repository is public, but a private one was asked for; name another repository, make"
            " this one private on its page, or allow a public one: rft push --public, or private: false in"
            " spec.output.hub"
        )
    if to.revision != MAIN:
        api.create_branch(to.repository, branch=to.revision, repo_type="model", exist_ok=True)


def _oids(api: Any, to: HubDestination) -> dict[str, str]:
    """Return the Git object id of every file in the branch that ``to`` names, by the file's path."""
    entries = api.list_repo_tree(to.repository, revision=to.revision, repo_type="model", recursive=True)
    return {entry.path: entry.blob_id for entry in entries if hasattr(entry, "blob_id")}


def _commit(api: Any, to: HubDestination, files: dict[str, BufferedReader]) -> None:
    from huggingface_hub import CommitOperationAdd

    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=file) for name, file in files.items()]
    api.create_commit(
        to.repository, operations, commit_message=_MESSAGE, repo_type="model", revision=to.revision
    )


def _error_of(to: HubDestination, error: BaseException) -> PushError:
    """Return the PushError for ``error``, an exception that was raised when files were copied to ``to``.

    Its message says what was expected and what to change.
    """
    from huggingface_hub.errors import OfflineModeIsEnabled

    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    status = getattr(response, "status_code", None)
    sent = ", ".join(set_variables(os.environ, PUSH_TOKEN, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))
    owner = to.repository.partition("/")[0]
    if status in (401, 403, 404):
        token = f"the token of {sent or 'hf auth login'}"
        return PushError(
            f"{to}: the hub refuses {token} ({status}); expected is a token that may write to {owner}: set"
            " HF_TOKEN to such a token, or run hf auth login; in a job set spec.output.hub.secretRef to a"
            " Secret with the token"
        )
    if isinstance(error, OfflineModeIsEnabled):
        return PushError(f"{to}: HF_HUB_OFFLINE is set, so nothing is sent; unset it, or set it to 0")
    temporary = not isinstance(error, ValueError) if status is None else is_temporary(status)
    return PushError(f"{to}: the hub did not accept the files: {said(error)}", temporary=temporary)
