"""The frozen base model, the layers that give every row its own adapter, and PEFT folders as tensors."""
