"""The role of a compute cell: choose a host, run host jobs, report up."""
