"""The one thread that owns the device and the base weights."""
