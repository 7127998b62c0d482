"""Layers of the networks. Shape legend: b batch, t time, d width, h heads, g key-value heads, e head width, v vocabulary."""
