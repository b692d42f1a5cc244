"""Datasets: reads and checks rows, renders rows into prompts, and puts prompts into their training order.

source     returns the local file of a path or URI; remote files are copied once into the run's folder
unpacking  converts compressed and CSV files into JSON lines, with rft_run.rows
rows       parses and checks one line; returns its row and its problems
run_rendering  the date and the rules with which all prompts of a run are rendered
template   renders test messages to find out which ones the chat template drops
rendering  renders a row into token ids with the model's chat template
whole      small files: read completely before the start, split and rendered
lines      large files: an index on disk with the offset of each line
order      computes a pseudo-random order of rows without storing the order
streamed   large files: rows are read, checked and rendered when they are needed
batching   computes how many prompts a step has
training   chooses the prompts of a step, for small and large files
opening    decides whether a file is read completely or row by row
"""

from rft_trainer.data.rows import Prompt, Row

__all__ = ["Prompt", "Row"]
