"""The ingest: the operator's server that receives the trainers' progress reports and verifies the senders."""
