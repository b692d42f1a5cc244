"""The operator with an API server that refuses, delays and closes requests at random: ``make soak``.

Each round injects one random fault. A seed determines the faults. During the fault, RFTJobs are created in
namespaces without the fault. After the fault, an RFTJob is created in a namespace that had the fault. In some
rounds the operator also gets a stop signal during the fault.
"""
