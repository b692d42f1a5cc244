"""The trainer: does one reinforcement fine-tuning run. Its sampler is vLLM's server or transformers."""
