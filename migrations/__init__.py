"""The history of the schemas, one branch for API cells and one for compute cells; applied by `celltree db upgrade`."""
