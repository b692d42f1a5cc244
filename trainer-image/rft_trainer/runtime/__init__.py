"""The machine of a run: cores, memory, device, memory allocator, and the files of the base model."""
