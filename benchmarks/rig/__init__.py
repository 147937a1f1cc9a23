"""What the programs share: a tree of cells in two shapes, loads, calibration, and how figures are told."""
