"""Reads and writes manifests, inputs and folders of runs on this machine. It imports neither typer
nor rich.
"""
