"""Ways to average the weights: in the driver (star), or among the workers on hosts or GPUs (ring)."""
