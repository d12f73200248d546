"""The engine's own coordinator and loops, led through simulated workers on a simulated clock.

    forecast.py ── algorithms.train ──> Coordinator ── requests ──> worker.py ──> links.py
                                            └────────── events <──── events.py (the clock)

Rounds, membership, stragglers, overlap and the groups of a ring are the engine's; what is simulated is how
long steps and transfers take, and when machines are reclaimed.
"""
