"""What several benchmarks need: inputs, peers, rows. A benchmark imports these and the harness, never another one."""
