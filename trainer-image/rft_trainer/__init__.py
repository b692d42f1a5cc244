"""The trainer: does one reinforcement fine-tuning run, and samples from a vLLM server."""
