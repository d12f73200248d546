"""EC2, and the only boto3 of the project: everything here takes a ``Region`` and returns plain values."""
