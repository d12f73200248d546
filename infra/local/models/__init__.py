"""State of the simulated cloud: what moto does not keep, without any call of AWS."""
