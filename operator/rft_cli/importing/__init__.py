"""Reads jobs of other programs as RFTJobs: OpenAI, Fireworks and TRL. Nothing that they contain is run."""
