"""What a model does, in pictures: the page of `evaluate.py --html`, and drawings of a spatial transformer."""
