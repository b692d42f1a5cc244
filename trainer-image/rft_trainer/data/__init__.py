"""Data: where rows come from, what is checked, and in which order they are trained.

source     the local file of a path or URI; what is remote is copied once into the run's folder
rows       a line becomes a row, or a list of what is wrong with it
rendering  the model's chat template makes token ids of it
whole      files that are read whole before the start: loaded, split, rendered
lines      larger files: where each line begins, kept on disk
order      an order of any number of rows that takes no memory
streamed   larger files: rows are read, checked and rendered when their turn comes
training   the prompts of a step, from either
opening    which of the two a file is
"""

from rft_trainer.data.rows import Prompt, Row

__all__ = ["Prompt", "Row"]
