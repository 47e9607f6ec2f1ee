"""Networks that read pictures: class, attributes, geometry, layout; each with its training and its measures."""
