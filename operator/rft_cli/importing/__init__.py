"""Converts jobs of OpenAI and Fireworks and scripts with TRL to RFTJobs. Code in them is never run."""
