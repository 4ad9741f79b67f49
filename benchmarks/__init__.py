"""Scripts behind every figure in docs/results.md. Run one as `python -m benchmarks.NAME`; `report` writes the page."""
