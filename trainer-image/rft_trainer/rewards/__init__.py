"""The old name of ``rft_graders``, for Jobs that an earlier release created."""
