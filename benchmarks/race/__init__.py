"""The parts of the pre-training race: one clock and one scorer for all systems, and a small driver for each of them.

`pace`, `scoring` and the drivers of the peers import nothing of Duihua: they run in the peers' own environment.
"""
