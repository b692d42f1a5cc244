"""Everything about the machine of a run: cores, memory, device, memory allocator, files of the base model."""
