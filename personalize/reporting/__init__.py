"""What the project says about itself in numbers."""
