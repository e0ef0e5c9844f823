"""The book: numbers, figures and pages made from results, and nothing typed.

What pages refer to is computed here, chapters draw in modules of their own (`chapters`), Sphinx
puts it on pages (`sphinx`). It may use results, judging, planning and training.
"""
