"""The `celltree` command. The only package that prints, and the only importer of cliff and rich."""
