"""Small networks with BatchNormalization, two of them trained, to show and to test folding."""
