"""The data: the embedded world of scenes, its captions, and real pictures by the same door."""
