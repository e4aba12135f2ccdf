"""Counterfactual inpainting: repair what makes a classifier say abnormal; the change explains."""
