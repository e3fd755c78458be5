"""Do the guards catch collapses, and leave healthy users alone? Built collapses against both classes of guards.

    python -m personalize.evaluation.guard_bench

What the folder of results holds is not measured again.
"""
