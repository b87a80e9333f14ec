"""The page of `evaluate.py --html`: what a model reads wrong, seen."""
