"""The chapter on batch norm: worked examples, speed, shifts inside the network and of the data."""
