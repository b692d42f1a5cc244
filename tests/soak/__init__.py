"""The operator with an API server that refuses, delays and closes requests at random: ``make soak``.

Each round injects a fault that is drawn with a seed. While the fault lasts, RFTJobs are created in the
namespaces that it does not affect. Afterwards one is created in a namespace that it affected. Some rounds end
with a stop signal while the fault lasts.
"""
