"""The data: the embedded world of scenes, its captions and maps, and real pictures by the same door.

Scenes are counted, so that picture i of seed k is the same whatever the batch.
Rule: exact truth (class, caption, depth, mask) comes from the scene, never from a network.
"""
