"""The study: simulated users taught by the code that production runs, one JSON line per measurement.

    python -m personalize.evaluation.study --arm rolling-block --turns 64 --out docs/study/results.jsonl

A measurement is keyed by (recipe, model, arm, control, profile, seed, turn); what the file holds is not measured again,
so an interrupted study goes on where it was, cell by cell.
"""
