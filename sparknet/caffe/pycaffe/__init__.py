"""pycaffe's classes: nets, blobs and solvers whose numbers are writable numpy arrays."""
