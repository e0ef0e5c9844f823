"""The engine: what trains.

A `Run` says what one network learns and how; runs of one shape make a `Stack`, which trains them
together and leaves tables. A stack is made of parts, a file each: `examples` and `draws` feed it,
`rates` and `stepping` make an update, `blocks` and `training` many, `averaging` keeps the running
averages, `view` is how evaluation and probes see its networks, `finals` and `recorder` make its
tables. `data/`, `tasks/` and `probes/` hold a thing a file. It uses techniques, never the study.
"""
