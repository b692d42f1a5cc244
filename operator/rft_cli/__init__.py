"""``rft``: check, run and watch RFTJobs from a terminal.

The trainer is started as a process and never imported; torch is not imported here.
"""
