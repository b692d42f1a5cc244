"""Fault injection on a real cluster, at random moments of a job's life: ``make chaos``.

Each round applies a job of a few short steps, injects one fault at a random moment (seeded), removes the
fault, waits for the job's end, and compares the final status with the files that the trainer wrote.
"""
