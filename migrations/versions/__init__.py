"""The revisions, in one file each."""
