"""The trainer with a change: it also saves the tokens of each rollout.

The unchanged trainer saves the text of a rollout, but not the tokens.
"""

import json
import sys
from collections.abc import Sequence

from rft_run.folder import RunFolder
from rft_trainer.__main__ import main
from rft_trainer.monitors import monitors
from rft_trainer.monitors.records import save_rollouts
from rft_trainer.rollout.groups import Group


def save_with_tokens(folder: RunFolder, step: int, groups: Sequence[Group]) -> None:
    """Save the rollouts of a step. Save their tokens in another file."""
    save_rollouts(folder, step, groups)
    tokens = [list(rollout.generated.token_ids) for group in groups for rollout in group.rollouts]
    (folder.rollouts / f"tokens-{step:06d}.json").write_text(json.dumps(tokens))


if __name__ == "__main__":
    vars(monitors)[save_rollouts.__name__] = save_with_tokens
    sys.exit(main())
