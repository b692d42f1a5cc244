"""Reads the files of datasets: for the trainer before and during a run, and for ``rft`` when it counts rows.

strict      reads one JSON value, and refuses errors that other readers ignore
messages    checks the messages of a row, and converts messages from other formats
parsing     reads one line: the messages and the fields of a row
beginning   recognises files of other formats by their first bytes, and says how to convert them
tool_calls  shows tools to a model as text, and reads the tool calls of the model
unpacking   converts gzip and CSV to JSON lines
"""

from rft_run.rows.beginning import BYTE_ORDER_MARK, HEAD_BYTES
from rft_run.rows.parsing import RowLayout, parsed
from rft_run.rows.unpacking import is_packed, json_lines

__all__ = ["BYTE_ORDER_MARK", "HEAD_BYTES", "RowLayout", "is_packed", "json_lines", "parsed"]
