"""Files that a simulated dom0 has beside its plugins. They run as child processes, not as part of celltree."""
