"""Results: checked tables and receipts, the store of runs, what was published, and what made each
number.
"""
