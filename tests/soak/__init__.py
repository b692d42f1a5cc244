"""The operator with an API server that refuses, delays and closes requests at random: ``make soak``.

Each round injects a fault that is drawn with a seed. While the fault lasts, RFTJobs are created in the
namespaces that the fault does not affect. Afterwards an RFTJob is created in a namespace that the fault has
affected. In some rounds the operator gets a stop signal while the fault lasts.
"""
