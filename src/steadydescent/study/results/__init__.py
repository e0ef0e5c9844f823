"""Results as files: checked tables and receipts, and what is true of them.

The store of finished runs, what was published, where a result came from, and what made each number.
It may use the engine, whose tables it keeps; it judges nothing.
"""
