"""The chapter on update rules: surfaces, bias correction, rules before and after tuning."""
