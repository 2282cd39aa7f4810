"""What the train command is made of: data, net, objective, loop, checkpoints, workers."""
