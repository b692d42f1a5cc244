"""Copies the files of a folder to a repository of the hub, or to a folder of a bucket."""
