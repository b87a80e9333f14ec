"""Word images rendered on the device: words, a glyph bank, layout, ink, colour, camera."""
