"""``python -m tests.trainer.random_user UID GROUP CONFIG``: runs one attempt as the user ``UID``.

The user is like one that OpenShift assigns. It has no name, its main group is 0, and its other group is
``GROUP``, the group of the volumes. The process can write only where this user and these groups can write.
The process can read every file, because a developer's Python may be in a home folder.
"""

import ctypes
import os
import sys
from pathlib import Path

PR_SET_KEEPCAPS = 8
CAP_DAC_READ_SEARCH = 2
CAPABILITY_VERSION_3 = 0x20080522


def become(uid: int, group: int) -> None:
    """Change this process from root to the user ``uid``. Raises OSError if the process is not root."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([group])
    os.setgid(0)
    os.setuid(uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    kept = 1 << CAP_DAC_READ_SEARCH
    sets = (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)  # effective, permitted and inheritable, twice
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


def main() -> int:
    uid, group, config = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    become(uid, group)
    os.umask(0o022)
    # Imported late, so that what an import writes is written by this user too.
    from rft_run.config import read_run_config
    from rft_trainer.attempt import attempt

    return attempt(read_run_config(config.read_text()), lambda: False)


if __name__ == "__main__":
    sys.exit(main())
