"""What is measured, by networks that no loss sees; one tidy row a value.

Pictures are drawn from shared noise and kept by the weights they came from; `readers` hold the networks that read them.
Rule: loads no shipped weights: networks and readers are handed in.
"""
