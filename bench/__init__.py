"""What `make bench` measures. Figures and what they mean: docs/benchmarks.md."""
