"""Reads jobs of OpenAI, Fireworks and TRL as RFTJobs. The code in them is never run."""
