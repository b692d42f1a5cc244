"""Progress ingest: what the trainers push, and the proof of who pushes."""
