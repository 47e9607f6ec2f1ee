"""Methods, one file each: a short loop that reads like the paper's algorithm box and yields its progress."""
