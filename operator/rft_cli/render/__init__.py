"""Formats the output of the commands: tables, charts, progress, and explanations of exit codes."""
