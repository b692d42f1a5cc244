"""The ingest: it receives the progress reports of trainers, and verifies who sends them."""
