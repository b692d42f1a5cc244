"""Reads and writes manifests, inputs and folders of runs on this machine. It does not import typer and
rich.
"""
