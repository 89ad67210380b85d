"""Every check and measurement that needs a GPU, behind one entry point: `run_all`."""
