"""How fast the tree is: one program per row of the goals, each run on the embedded and on the lab shape."""
