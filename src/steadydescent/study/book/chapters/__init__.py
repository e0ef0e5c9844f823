"""What the book's chapters compute and draw, a module or folder a chapter; a page's cells call it.

`table_*` functions take evidence or results and return a table; `draw_*` functions save a figure
with alt text, caption and data. They use `steadydescent.study.book`'s figures and plots, judging
and the rooms before it; nothing imports them but pages and tests.
"""
