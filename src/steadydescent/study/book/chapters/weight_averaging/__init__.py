"""What the chapter on weight averaging computes and draws."""
