"""Generated files: the CRD and the chart's copy of it."""
