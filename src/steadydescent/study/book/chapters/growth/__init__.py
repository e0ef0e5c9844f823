"""The chapter on growth: time and memory against size, and what a million networks would cost."""
