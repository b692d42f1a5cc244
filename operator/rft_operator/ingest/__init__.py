"""Progress ingest: receives the trainers' reports, and verifies who sends them."""
