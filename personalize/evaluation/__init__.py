"""Simulated users, rule-checked rates, the demo, and the measurements that the figures come from."""
