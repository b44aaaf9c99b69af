"""Forms of products and convolutions that are fast on a CPU, each beside its plain twin.

Every layer is told which of the two it takes (`config.model.cpu_kernels`). Both compute the same numbers, to rounding;
the CPU forms have reverse-mode derivatives alone, and plain ones forward-mode derivatives too.
"""
