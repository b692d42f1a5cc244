"""How a dataset's file is read: by the trainer before and during a run, and by ``rft`` when it counts rows.

strict      one JSON value: what other readers let pass in silence is refused
messages    the messages of a row: checks them, and takes the forms that others write
parsing     one line: messages and fields of a row
beginning   what a file begins with: one that holds no rows is refused once, with how to convert it
unpacking   gzip and CSV, as JSON lines
"""

from rft_run.rows.beginning import BYTE_ORDER_MARK, HEAD_BYTES
from rft_run.rows.parsing import RowLayout, parsed
from rft_run.rows.unpacking import is_packed, json_lines

__all__ = ["BYTE_ORDER_MARK", "HEAD_BYTES", "RowLayout", "is_packed", "json_lines", "parsed"]
