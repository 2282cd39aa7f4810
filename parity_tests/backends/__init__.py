"""What the suite asks of a framework, and the adapters that answer: Gluon, torch."""
