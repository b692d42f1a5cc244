"""Everything that ``rft`` does in a cluster: reads and changes RFTJobs, and reads the folders of runs through
pods. This package imports neither typer nor rich.
"""
