"""The machine that a run uses: cores, memory, device, memory allocator, and the files of the base model."""
