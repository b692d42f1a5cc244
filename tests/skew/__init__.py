"""Checks that this release and another one continue each other's runs and jobs."""
