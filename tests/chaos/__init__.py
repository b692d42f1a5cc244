"""Fault injection on a real cluster, at random moments while a job runs: ``make chaos``.

Each round applies a job with a few short steps, and injects one fault at a random moment. A seed determines
the moment. The round removes the fault and waits until the job ends. Then it compares the final status with
the files that the trainer wrote.
"""
