"""What the chapter on decay schedules computes and draws."""
