"""How many GPUs, and how much CPU and memory, a job needs. Pure: imports ``rft_api`` only."""
