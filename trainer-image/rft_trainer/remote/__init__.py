"""Copies the files of a folder to a repository of the Hugging Face hub, or to a folder of an S3 bucket."""
