"""``python -m rft_trainer.push``: copies the files of a folder to the Hugging Face hub or to an S3 bucket.

    python -m rft_trainer.push --folder DIR --to DESTINATION [--public]

``rft push`` runs this module. Tokens and keys come from the environment or from the user's login. The result
is one line of JSON on standard output, with the fields of ``Pushed``.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from rft_run.destination import Destination, HubDestination, read_destination
from rft_trainer.remote.sending import Pushed, PushError


def push(folder: Path, to: Destination) -> Pushed:
    """Copy the files of a folder to a repository of the Hugging Face hub, or to a folder of an S3 bucket.

    A repeated push sends only the files that differ. Raises PushError if the copy fails.
    """
    if isinstance(to, HubDestination):
        from rft_trainer.remote.hub import push_to_hub

        return push_to_hub(folder, to)
    from rft_trainer.remote.s3 import push_to_s3

    return push_to_s3(folder, to)


def main(argv: list[str] | None = None) -> int:
    """Copy the folder that the command line names. Return the exit status: 0, or 1 after a printed error.

    ``argv``: the arguments. None: those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m rft_trainer.push")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--to", required=True, help="hf://OWNER/NAME[@REVISION] or s3://BUCKET/PREFIX")
    parser.add_argument("--public", action="store_true")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        done = push(arguments.folder, read_destination(arguments.to, private=not arguments.public))
    except (PushError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(done._asdict()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
