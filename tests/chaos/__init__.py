"""Faults at random moments of a job's life, on a real cluster: ``make chaos``.

Each round applies a job of a few short steps, strikes once at a moment drawn from a seed, heals what was
struck, and then holds the end against what the trainer itself wrote down.
"""
