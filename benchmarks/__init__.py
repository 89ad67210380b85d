"""One script per claim; results with machine, versions and date."""
