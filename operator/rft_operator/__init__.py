"""The operator: watches RFTJobs, runs each as a child Job, and writes its progress into the status."""
