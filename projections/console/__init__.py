"""Read models in the operators' console."""
