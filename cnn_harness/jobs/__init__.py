"""The processes of one distributed job."""
