"""Documentation, and the script that keeps its generated parts up to date."""
