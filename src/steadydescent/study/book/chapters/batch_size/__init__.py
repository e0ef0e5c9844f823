"""The chapter on batch sizes: noise, critical size, equal budgets, rates, the quadratic, times."""
