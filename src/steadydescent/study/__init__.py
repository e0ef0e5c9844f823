"""The study: what is asked, trained, judged and published with the engine. It may import all but
the command line.
"""
