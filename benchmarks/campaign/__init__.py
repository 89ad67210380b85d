"""The campaign that measures evidence in both directions: right, wrong, forged folds."""
