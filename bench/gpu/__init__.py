"""``make gpu-check``: measures on a machine with a GPU, in parts of less than nine minutes each."""
