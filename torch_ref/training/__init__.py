"""What the mirror's train command is made of."""
