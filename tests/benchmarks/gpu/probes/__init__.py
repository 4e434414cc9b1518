"""What only hardware can tell, as small experiments; see :mod:`tests.benchmarks.gpu_probe`."""
