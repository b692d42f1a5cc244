"""Reads dataset files. The trainer uses this package for the rows of a run, and the command ``rft`` uses it,
for example, to count rows.

strict      reads one JSON value, and refuses errors that other readers ignore
messages    checks the messages of a row, and converts messages from other formats
parsing     reads one line: the messages and the fields of a row
beginning   recognises other file formats by the first bytes, and says how to convert the file
tool_calls  describes tools to a model in its messages, and parses the model's tool calls
unpacking   converts gzip and CSV to JSON lines
"""

from rft_run.rows.beginning import BYTE_ORDER_MARK, HEAD_BYTES
from rft_run.rows.parsing import RowLayout, parsed
from rft_run.rows.unpacking import is_packed, json_lines

__all__ = ["BYTE_ORDER_MARK", "HEAD_BYTES", "RowLayout", "is_packed", "json_lines", "parsed"]
