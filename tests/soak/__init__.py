"""The operator against an API server that refuses, delays and closes at random: ``make soak``.

Each round draws a fault with a seed. While it lasts, RFTJobs are created in the namespaces that it does not
touch, and after it one in a namespace that it did touch. Some rounds end with a stop signal while the fault
lasts.
"""
