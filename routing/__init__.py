"""Where a record goes next and which leaf could take a build. Pure: no I/O, no clock, no threads."""
