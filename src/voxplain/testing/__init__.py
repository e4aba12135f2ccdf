"""Phantoms, analytic models and hypothesis strategies with which voxplain is tested."""
