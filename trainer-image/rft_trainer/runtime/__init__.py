"""The machine under a run: cores, memory, device, allocator, and the files of the base model."""
