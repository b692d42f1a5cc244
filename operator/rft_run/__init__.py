"""What a run reads, writes and reports: every file and message, defined once for all three programs."""
