"""``python -m rft_trainer.rewards.serve``: the command of the grader container in Jobs of earlier releases.

The pod template of a Kubernetes Job never changes. So a run that was suspended before an upgrade of the
operator still starts this command after the upgrade. If the image's tag has not changed, the command may run
in an image of the new release.
"""

import sys

from rft_graders.serve import main

if __name__ == "__main__":
    sys.exit(main())
