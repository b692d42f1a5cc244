"""Datasets: reads and checks rows, renders them into prompts, and puts them into their training order.

source     returns the local file of a path or URI; remote files are copied once into the run's folder
unpacking  makes JSON lines of what is compressed or CSV, as rft_run.rows says
rows       checks one line: a row, or a list of problems
run_rendering  the date by which a run's prompts are rendered, and by which rules
template   finds out by rendering what the chat template drops
rendering  renders a row into token ids by the model's chat template
whole      small files, read completely before the start: load, split, render
lines      large files: an index on disk of where each line begins
order      a pseudo-random order of rows that takes no memory
streamed   large files: rows are read, checked and rendered when they are needed
training   the prompts of a step, for both kinds of files
opening    decides how a file is read
"""

from rft_trainer.data.rows import Prompt, Row

__all__ = ["Prompt", "Row"]
