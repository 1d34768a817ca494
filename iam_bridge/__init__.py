"""IAM bridge: one identity, from INDIGO IAM to the HPC cluster."""

__version__ = "0.1.0"
