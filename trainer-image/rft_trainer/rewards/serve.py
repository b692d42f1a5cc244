"""``python -m rft_trainer.rewards.serve``: the command of the grader container in Jobs of earlier releases.

A Job's pod template never changes. So a run that was suspended before an upgrade still starts this command,
in an image of the new release if the image's tag stayed the same.
"""

import sys

from rft_graders.serve import main

if __name__ == "__main__":
    sys.exit(main())
