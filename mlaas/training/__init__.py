"""Language-model training with DeepSpeed on Ray Train: recipes, data, loop, checkpoints."""
