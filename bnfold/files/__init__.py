"""Files: which one a path means, and how one is replaced so that nothing is lost."""
