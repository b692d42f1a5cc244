"""Makes the plan of a fine-tuning job: the GPUs, CPUs and memory that it needs, its time and its cost.

This package has no side effects. Of the project's other packages it imports only ``rft_api``.
"""
