"""Stitched prediction and exact gradients through sliding windows, one window in memory."""
