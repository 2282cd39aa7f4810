"""Level scale: two devices on half batches compute what one computes on whole batches."""
