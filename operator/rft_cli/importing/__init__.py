"""Converts jobs of OpenAI and Fireworks and scripts with TRL to RFTJob manifests. Their code is never run."""
