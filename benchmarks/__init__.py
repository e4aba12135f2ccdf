"""Side-by-side measurements: each compares voxplain with the plain way, in one run."""
