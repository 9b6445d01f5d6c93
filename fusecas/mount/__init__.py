"""A workspace as a file system: pyfuse3 over the overlay. The binding is imported here and nowhere else."""
