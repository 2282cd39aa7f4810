"""What concerns no single room: installing, console scripts, what people type."""
