"""The old name of ``rft_graders``. Jobs that an earlier release created still use it."""
