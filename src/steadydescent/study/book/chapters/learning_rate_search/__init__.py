"""What the chapter on finding the learning rate computes and draws."""
