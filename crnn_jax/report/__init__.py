"""What a model does, seen: the page of `evaluate.py --html`, and drawings of a spatial transformer."""
