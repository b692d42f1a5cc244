"""The trainer: does one reinforcement fine-tuning run. vLLM's server or transformers sample for it."""
