"""What serving and learning cost, as ratios: every side of a ratio is measured in turn in one run.

    python -m personalize.evaluation.bench --out docs/benchmarks

One module measures one thing; ``command`` says which of them run on which model.
"""
