"""Learning from sparse labels: network, losses, views, crops, training, checkpoint, prediction. The only PyTorch."""
