"""SAMPLERS: who proposes the next recipe. The only door to optuna."""
