"""The book: numbers, figures and pages made from results."""
