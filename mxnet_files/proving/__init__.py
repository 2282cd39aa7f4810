"""The folder that leaves MXNet behind: what is in it, and the certificate that says why."""
